"""A captioner that hangs or dies: noticed, ended, started anew, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from tqdm import tqdm

from curate.base.errors import StageError
from curate.store.shards import iter_shard
from pipelines.commands.recaption import RecaptionCommandSettings, recaption
from pipelines.runners.caption_watch import Block, CaptionWatch
from pipelines.runners.pulse import TellPulse
from pipelines.runners.told import Board
from tests.curate.tiny import drawn, encoded, make_dataset
from tests.pipelines.runners.captioners_that_fail import mark_of


@pytest.mark.faults
def test_only_the_pictures_over_which_it_is_lost_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [(encoded(drawn(number)), f"alt {number}") for number in range(24)]
    dataset = make_dataset(tmp_path / "data", [pictures])
    stored = {key: picture for key, picture, _ in iter_shard(dataset, "00000")}
    keys = list(stored)
    hangs, dies = keys[13], keys[18]
    monkeypatch.setenv("HANGS_OVER", mark_of(stored[hangs]))
    monkeypatch.setenv("DIES_OVER", mark_of(stored[dies]))
    settings = RecaptionCommandSettings(
        captioner="tests.pipelines.runners.captioners_that_fail:Failing",
        kinds=("short",),
        t5_tokenizer="",
        batch_size=4,
        checkpoint_rows=8,
        stuck_after=1.5,
        runner="local",
    )
    summary = recaption(dataset.directory, settings)
    rows = dataset.read_table("captions", "00000", summary.source).to_pylist()
    told = {row["key"]: row for row in rows}
    assert len(rows) == len(told) == 24
    assert {row["key"]: row["reason"] for row in rows if row["status"] != "ok"} == {
        hangs: "engine_stuck",
        dies: "engine_died",
    }
    assert "did not move for" in told[hangs]["detail"]
    assert "died (killed, out of memory, or a crash)" in told[dies]["detail"]
    assert told[dies]["image_sha256"]
    # Each once among others and once alone; both times it is said over what.
    assert len(summary.losses) == 4
    for key in (hangs, dies):
        assert any(f"at short of {key}" in loss for loss in summary.losses), "alone"
    assert "started anew 4 times" in summary.text()
    assert not list(dataset.directory.glob(".told-*"))


def test_a_captioner_that_is_lost_while_it_is_loaded_blames_no_picture_and_ends_the_run(
    tmp_path: Path,
) -> None:
    board = Board(tmp_path / "told", tqdm(disable=True))
    watch = CaptionWatch(tmp_path / "told", 1e-9, lambda *_: pytest.fail("no row"), board)
    block = Block("00000-0", "00000", {"a": [("short", 0)]})
    for _ in range(2):
        TellPulse(tmp_path / "told", block.name).opening()
        assert [watch.stuck(block) for _ in range(3)] == [None] * 3, "weights may be far away"
        assert watch.instead(block, "its worker died") is None, "tried again as any other"
    TellPulse(tmp_path / "told", block.name).opening()
    with pytest.raises(StageError, match=r"lost 3 times while it was loaded: its worker died\."):
        watch.instead(block, "its worker died")
