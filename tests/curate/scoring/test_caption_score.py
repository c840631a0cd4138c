from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.scoring.captions import CaptionScoreStage
from curate.scoring.scorers.clip import ClipModel
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from curate.store.sample_lookups import caption_columns
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip

LONG = "A red fox sits in the deep snow. Behind it stands a very old oak tree. Birds sing."


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    return {"clip_model": str(config), "clip_pretrained": str(weights)}


@pytest.fixture
def dataset(tmp_path: Path, clip: dict[str, str]) -> Dataset:
    samples = [(encoded(drawn(i)), f"alt {i}") for i in range(3)] + [(b"broken", "x")]
    dataset = make_dataset(tmp_path / "dataset", [samples], failed=0)
    stage = ScoreStage(ScoreSettings(**clip))
    stage.run(dataset, "00000")
    write_captions(dataset, "vlm", "descriptive", [LONG, "A cat.", None, "Nothing to see."])
    return dataset


def write_captions(
    dataset: Dataset, source: str, kind: str, texts: list[str | None], **more: list[str]
) -> None:
    keys = dataset.read_table("scores", "00000").column("key").to_pylist()
    rows = []
    for name, some in {kind: texts, **more}.items():
        for key, text in zip(keys, some, strict=True):
            row = dict.fromkeys(CAPTIONS.names) | {
                "key": key,
                "kind": name,
                "sample_index": 0,
                "text": text,
                "status": "failed" if text is None else "ok",
            }
            rows.append(row)
    dataset.write_table("captions", pa.Table.from_pylist(rows, CAPTIONS), "00000", source)


def score(dataset: Dataset, settings: ScoreSettings, *kinds: str) -> dict[str, int]:
    stage = CaptionScoreStage(settings, kinds or ("descriptive",))
    stage.check(dataset)
    counts = stage.run(dataset, "00000")
    assert stage.is_done(dataset, "00000")
    return counts


def rows(dataset: Dataset, source: str = "vlm") -> list[dict]:
    return dataset.read_table("caption_scores", "00000", source).to_pylist()


def test_a_long_caption_is_scored_as_a_whole_and_by_sentence(dataset: Dataset, clip) -> None:
    score(dataset, ScoreSettings(**clip))
    model = ClipModel.load(*clip.values())
    picture = dataset.read_table("embeddings", "00000").column("image")[0].as_py()
    sentences = [part + "." for part in LONG.rstrip(".").split(". ")]
    whole, *single = model.embed_texts([LONG, *sentences]) @ np.array(picture, np.float32)
    row = rows(dataset)[0]
    assert row["clip_similarity"] == pytest.approx(whole, abs=1e-6)
    assert row["clip_sentences"] == 3
    assert row["clip_sentence_mean"] == pytest.approx(np.mean(single), abs=1e-6)
    assert row["clip_sentence_min"] == pytest.approx(min(single), abs=1e-6)
    assert row["clip_sentence_max"] == pytest.approx(max(single), abs=1e-6)


def test_nothing_is_truncated_silently(dataset: Dataset, clip) -> None:
    # One sentence of 30 words in a context of 12 tokens: cut in pieces, all of them scored.
    write_captions(dataset, "vlm", "descriptive", ["word " * 30, "short", None, "x"])
    score(dataset, ScoreSettings(**clip))
    first, second, *_ = rows(dataset)
    assert first["clip_truncated_tokens"] == 30 + 2 - 12
    assert first["clip_sentences"] == 4  # 30 words, halved twice
    assert (second["clip_truncated_tokens"], second["clip_sentences"]) == (0, 1)


def test_captions_of_a_broken_picture_have_null_scores_and_failed_captions_no_row(
    dataset: Dataset, clip
) -> None:
    score(dataset, ScoreSettings(**clip))
    found = rows(dataset)
    assert len(found) == 3
    broken = dataset.read_table("scores", "00000").column("key")[3].as_py()
    row = next(row for row in found if row["key"] == broken)
    assert row["clip_similarity"] is None
    assert row["clip_sentence_min"] is None
    assert row["clip_sentences"] == 1


def test_only_captions_that_are_new_or_changed_are_scored_again(dataset: Dataset, clip) -> None:
    settings = ScoreSettings(**clip)
    assert score(dataset, settings) == {"captions": 3, "reused": 0}
    before = rows(dataset)
    write_captions(dataset, "vlm", "descriptive", [LONG, "A dog.", "New.", "Nothing to see."])
    assert score(dataset, settings) == {"captions": 4, "reused": 2}
    after = {row["text_sha256"]: row for row in rows(dataset)}
    assert [after[row["text_sha256"]] for row in (before[0], before[2])] == [before[0], before[2]]
    assert score(dataset, settings) == {}


def test_a_second_model_adds_its_columns_and_repeats_nothing(
    dataset: Dataset, clip, tmp_path: Path
) -> None:
    score(dataset, ScoreSettings(**clip))
    before = rows(dataset)
    config, weights = tiny_clip(tmp_path / "second", seed=5)
    both = ScoreSettings(**clip, more_clips={"b32": f"{config}@{weights}"})
    with pytest.raises(DatasetError, match="no embeddings"):
        score(dataset, both)
    ScoreStage(both).run(dataset, "00000")
    score(dataset, both)
    for old, new in zip(before, rows(dataset), strict=True):
        assert {name: new[name] for name in old} == old
        assert (
            new["clip_similarity_b32"] != old["clip_similarity"] or new["clip_similarity"] is None
        )


def test_every_source_and_kind_is_kept_apart(dataset: Dataset, clip) -> None:
    write_captions(
        dataset, "other", "short", ["a", "b", "c", "d"], descriptive=["A.", "B.", "C.", "D."]
    )
    score(dataset, ScoreSettings(**clip), "all")
    kinds = [(row["kind"], row["source"]) for row in rows(dataset, "other")]
    assert kinds == [("short", "other")] * 4 + [("descriptive", "other")] * 4
    assert {row["source"] for row in rows(dataset)} == {"vlm"}
    connection = dataset.connect()
    sql, columns = caption_columns(connection)
    assert {"short_clip_similarity", "descriptive_clip_sentence_min"} <= set(columns)
    assert connection.execute(f"SELECT count(*) FROM ({sql})").fetchone() == (4,)


def test_a_kind_that_nobody_wrote_is_refused(dataset: Dataset, clip) -> None:
    with pytest.raises(ConfigError, match="did you mean 'descriptive'"):
        CaptionScoreStage(ScoreSettings(**clip), ["descriptiv"]).check(dataset)
