"""A captioner's folder is scored on scenes that it did not learn from."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.make_weights.captioner_pairs import (
    clean_scenes,
    write_clean_pairs,
    write_noisy_pairs,
)
from pipelines.make_weights.score_captioner import captioner_scores, held_out_files
from pipelines.world.facts import contradicts, facts
from pipelines.world.writers import habitual_descriptive, habitual_short
from recaption.fit.pairs import read_pairs


def test_scores_count_what_is_right_among_what_is_said_and_what_is_there() -> None:
    scenes = clean_scenes(40, seed=3)
    for kind, truth in (
        ("short", habitual_short(scenes)),
        ("descriptive", habitual_descriptive(scenes)),
    ):
        scores = captioner_scores(kind, truth, scenes)
        assert (scores["precision"], scores["recall"]) == (1.0, 1.0)
        half = captioner_scores(kind, [*truth[:20], *[""] * 20], scenes)
        assert half["precision"] == 1.0
        assert 0.3 < half["recall"] < 0.7
        wrong = captioner_scores(kind, truth[1:] + truth[:1], scenes)
        assert wrong["precision"] < 0.3


def test_held_out_scenes_are_none_that_were_learnt() -> None:
    drawn, _ = held_out_files(8, seed=2)
    rest, pictures = held_out_files(8, seed=2, learnt=drawn[:2])
    assert rest[:6] == drawn[2:]
    assert len(pictures) == 8
    with pytest.raises(ValueError, match="only"):
        held_out_files(8, seed=2, learnt=drawn)


def test_clean_pairs_tell_the_truth_and_alt_texts_are_noisy(tmp_path: Path) -> None:
    clean = read_pairs(write_clean_pairs(tmp_path / "c.parquet", 20, 7), ("short", "descriptive"))
    assert clean.counts() == {"short": 20, "descriptive": 20}
    scenes = clean_scenes(20, 7)
    told = [row.caption for row in clean.rows if row.kind == "descriptive"]
    assert not any(contradicts(facts(t), s) for t, s in zip(told, scenes, strict=True))
    path = write_noisy_pairs(tmp_path / "n.parquet", 60, 7)
    noisy = read_pairs(path, ("alt",))
    assert noisy.counts()["alt"] + noisy.reasons()["no_caption"] == 60
    assert set(habitual_short(scenes)).isdisjoint(pq.read_table(path)["caption"].to_pylist())
