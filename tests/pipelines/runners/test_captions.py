"""Captions by several workers: shared shards, kills, one row a caption. Ray: see test_on_ray."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from curate.base.errors import CaplabError, StageError
from curate.store.captions import CaptionRef
from curate.store.contract import CAPTIONS_VOLATILE
from curate.store.dataset import Dataset
from pipelines.bench.common.children import tied
from pipelines.commands.recaption import RecaptionCommandSettings, dry_run, recaption
from pipelines.demo.demo import recaption_settings
from pipelines.runners import choice
from pipelines.runners.captions import caption_shards, plan_captions, share_of_cpus
from pipelines.runners.local import Local
from pipelines.world import weights
from recaption.captioning.parts import ShardCaptions
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage
from recaption.human.rows import HumanCaption, store_human
from recaption.measure.token_counts import TokenCounter
from tests.curate.tiny import drawn, encoded, make_dataset
from tests.pipelines.runners.stages_that_tell import EachWorkerIsSeen, KilledOnce
from tests.recaption.moody_server import moody_server

ID = ("key", "kind", "sample_index")


def uncaptioned(curated: Dataset, directory: Path) -> Dataset:
    """A copy of the curated dataset without captions."""
    leave = shutil.ignore_patterns("captions", ".scratch")
    shutil.copytree(curated.directory, directory, ignore=leave)
    return Dataset.open(directory)


def settings_of(small_web, **changes) -> RecaptionCommandSettings:
    given = recaption_settings(small_web.settings).resolved() | changes
    return RecaptionCommandSettings(**given)


def stage_of(settings: RecaptionCommandSettings, dataset: Dataset) -> CaptionStage:
    return CaptionStage(settings.part(RecaptionSettings), dataset=dataset)


def captions(dataset: Dataset) -> pa.Table:
    tables = [
        dataset.read_table("captions", shard, source).drop_columns(list(CAPTIONS_VOLATILE))
        for source in dataset.caption_sources()
        if source != "alt"
        for shard in dataset.shards()
    ]
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in ID])


def assert_same_captions(dataset: Dataset, other: Dataset) -> None:
    """Every column but cosines, which batches of another size round differently, is equal."""
    ours, theirs = captions(dataset), captions(other)
    for name in ours.column_names:
        if pa.types.is_floating(ours.schema.field(name).type):
            values = [table.column(name).to_numpy() for table in (ours, theirs)]
            np.testing.assert_allclose(*values, atol=2e-4)
        else:
            assert ours.column(name).equals(theirs.column(name)), name


def started(dataset: Dataset, settings: RecaptionCommandSettings, tmp_path: Path) -> list[str]:
    config = tmp_path / "recaption.yaml"
    config.write_text(json.dumps(settings.resolved()))
    command = ["recaption", str(dataset.directory), "--config", str(config)]
    return [sys.executable, "-m", "pipelines.cli", *command]


def kill_when_parts_lie_there(command: list[str], dataset: Dataset, count: int) -> set[Path]:
    """SIGKILL the driver and all that it started once `count` parts are written."""
    driver = subprocess.Popen(tied(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(parts := parts_of(dataset)) < count:
        assert driver.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline, "no parts appeared"
        time.sleep(0.01)
    family = psutil.Process(driver.pid).children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    for process in family:
        if process.is_running():
            process.kill()
    driver.wait()
    return parts


def parts_of(dataset: Dataset) -> set[Path]:
    return set((dataset.directory / ".scratch" / "captions").glob("*/*/[!.]*.parquet"))


@pytest.mark.faults
def test_a_killed_run_goes_on_from_its_parts_and_ends_as_an_unbroken_one(
    curated, small_web, tmp_path
):
    dataset = uncaptioned(curated, tmp_path / "data")
    settings = settings_of(small_web, checkpoint_rows=8)
    left = kill_when_parts_lie_there(started(dataset, settings, tmp_path), dataset, 3)
    kept = parts_of(dataset)
    assert left <= kept
    subprocess.run(tied(started(dataset, settings, tmp_path)), check=True, capture_output=True)
    assert_same_captions(dataset, curated)
    assert not parts_of(dataset)


@pytest.fixture
def asked(tmp_path):
    """A dataset of one shard, settings of a captioner behind HTTP, and what it writes unbroken."""
    pictures = [(encoded(drawn(number)), f"alt {number}") for number in range(16)]
    with moody_server() as moody:
        settings = RecaptionSettings(
            captioner=moody.url, kinds=("short",), t5_tokenizer="", checkpoint_rows=2
        )
        whole = make_dataset(tmp_path / "whole", [pictures])
        caption_shards(Local(), CaptionStage(settings, dataset=whole), whole, workers=1)
        yield make_dataset(tmp_path / "data", [pictures]), settings, whole


def test_only_missing_asks_for_what_nobody_has_and_a_killed_run_keeps_to_its_plan(asked):
    dataset, base, _ = asked
    keys = [row["key"] for row in dataset.read_table("samples", "00000").to_pylist()][:16]
    tokens = TokenCounter("")

    def write_by_hand(some: list[str]) -> None:
        for key in some:
            told = HumanCaption(key, "written by hand", sample_index=0)
            store_human(dataset, "human-anna", "00000", [told], tokens)

    write_by_hand(keys[:5])
    # Another captioner, whose captions of kind short are all accepted.
    dataset.write_selection("some", pa.array(keys[3:9]), {})
    other = base.model_copy(update={"selection": "some", "seed": 1})
    caption_shards(Local(), CaptionStage(other, dataset=dataset), dataset, workers=1)

    settings = RecaptionCommandSettings(**{**base.resolved(), "only_missing": True})
    told = dry_run(dataset.directory, settings, 2)
    assert "not asked, for somebody's is accepted already: short of 9 pictures" in told
    assert "left: 7 of 7 captions" in told
    shown = re.findall(r"^  (\w{32}) in shard 00000: http://example.com/(\d+).png$", told, re.M)
    assert [keys[int(number)] for _, number in shown] == [key for key, _ in shown]
    assert len(shown) == 2
    assert re.search(r"came with: alt \d+\n    short, ok: A picture numbered", told)
    stage = stage_of(settings, dataset)
    assert stage.source == stage_of(RecaptionCommandSettings(**base.resolved()), dataset).source
    assert not stage.only_missing.fixed(dataset), "a rehearsal fixes nothing"

    # A run that is killed behind its first block; meanwhile somebody else goes on.
    stage.only_missing.fix(dataset)
    stage.open()
    first = next(stage.blocks(dataset, "00000", 2))
    stage.write(dataset, stage.work(dataset, "00000", first))
    more = base.model_copy(update={"selection": "more", "seed": 1})
    dataset.write_selection("more", pa.array(keys[12:14]), {})
    caption_shards(Local(), CaptionStage(more, dataset=dataset), dataset, workers=1)
    recaption(dataset.directory, settings)

    rows = dataset.read_table("captions", "00000", stage.source).to_pylist()
    assert {row["key"] for row in rows} == {*keys[9:]}
    assert recaption(dataset.directory, settings).text() == "no caption was missing"
    # Two kinds are two questions.
    both = RecaptionCommandSettings(**{**settings.resolved(), "kinds": ["short", "descriptive"]})
    plan = plan_captions(stage_of(both, dataset), dataset, 1)
    assert (plan.wanted, plan.held["short"], plan.held["descriptive"]) == (11, 16, 5)
    # What somebody called bad is nobody's.
    about = CaptionRef("short", stage.source, 0, "0" * 16)
    told = HumanCaption(keys[15], about=about, mark="bad", raw_text="A picture")
    store_human(dataset, "human-bob", "00000", [told], tokens)
    another = RecaptionCommandSettings(**{**settings.resolved(), "seed": 2})
    assert plan_captions(stage_of(another, dataset), dataset, 1).missing == {"00000": 1}


def test_all_workers_share_one_shard_and_each_caption_stands_once(asked, tmp_path):
    dataset, settings, whole = asked
    roll = tmp_path / "roll"
    roll.mkdir()
    stage = EachWorkerIsSeen(settings, dataset, roll)
    assert plan_captions(stage, dataset, workers=2).block_captions == 2
    caption_shards(Local(), stage, dataset, workers=2)
    assert len(list(roll.iterdir())) == 2
    assert str(os.getpid()) not in {path.name for path in roll.iterdir()}
    assert_same_captions(dataset, whole)


def test_a_worker_that_dies_is_replaced_and_no_caption_is_lost(asked, tmp_path):
    dataset, settings, whole = asked
    stage = KilledOnce(settings, dataset, tmp_path / "killed")
    caption_shards(Local(), stage, dataset, workers=2)
    assert (tmp_path / "killed").exists()
    assert_same_captions(dataset, whole)


def test_parts_that_a_killed_run_could_not_merge_are_merged_by_the_next(
    curated, small_web, tmp_path
):
    dataset = uncaptioned(curated, tmp_path / "data")
    stage = stage_of(settings_of(small_web), dataset)
    stage.open()
    for shard in dataset.shards():
        for block in stage.blocks(dataset, shard, 64):
            stage.write(dataset, stage.work(dataset, shard, block))
    assert parts_of(dataset)
    assert stage.source not in dataset.caption_sources()
    caption_shards(Local(), stage, dataset, workers=1)
    assert_same_captions(dataset, curated)
    assert not parts_of(dataset)


def test_a_full_disk_is_told_and_the_same_command_takes_up_the_rest(
    curated, small_web, tmp_path, monkeypatch
):
    monkeypatch.setattr(choice, "Local", partial(Local, processes=False))
    dataset = uncaptioned(curated, tmp_path / "data")
    settings = settings_of(small_web)
    stage = stage_of(settings, dataset)
    blocked = ShardCaptions(dataset, stage.source, dataset.shards()[0]).scratch
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the parts should lie")
    with pytest.raises(CaplabError, match="takes up the rest"):
        recaption(dataset.directory, settings)
    blocked.unlink()
    recaption(dataset.directory, settings)
    assert_same_captions(dataset, curated)


def test_a_worker_that_cannot_open_the_captioner_ends_with_its_sentence(
    curated, small_web, tmp_path
):
    dataset = uncaptioned(curated, tmp_path / "data")
    folder = tmp_path / "captioner"
    shutil.copytree(weights.captioner_dir(), folder)
    (folder / "tokenizer.json").write_text("{}")
    stage = stage_of(settings_of(small_web, captioner=str(folder)), dataset)
    with pytest.raises(CaplabError, match="cannot be loaded as a captioner"):
        caption_shards(Local(processes=False), stage, dataset, workers=1)


def test_a_server_without_credit_ends_the_run_and_the_next_asks_again(tmp_path):
    pictures = [(encoded(drawn(number)), f"alt {number}") for number in range(64)]
    dataset = make_dataset(tmp_path / "data", [pictures])
    with moody_server() as moody:
        settings = RecaptionCommandSettings(
            captioner=moody.url, kinds=("short",), t5_tokenizer="", stop_after_unaccepted=6
        )
        moody.mood, moody.calm = "402", 1 + 12  # a trial, then twelve captions
        with pytest.raises(StageError, match=r"none of the last .* http_402.*Insufficient credits"):
            recaption(dataset.directory, settings)
        assert 12 + 6 <= 12 - moody.calm <= 12 + 4 * 6, "a few blocks were under way"
        left = plan_captions(stage_of(settings, dataset), dataset, 1).missing
    assert sum(left.values()) == 64 - 12, "the failed ones are missing, the twelve are not"


def test_a_rehearsal_speaks_of_what_is_left(curated, small_web):
    settings = settings_of(small_web, samples_per_image=2, temperature=0.5)
    told = dry_run(curated.directory, settings, 5)
    assert "captions of 5 pictures" in told
    with pytest.raises(CaplabError, match="written already"):
        dry_run(curated.directory, settings_of(small_web), 5)


@pytest.mark.parametrize(
    ("machines", "workers", "cpus"),
    [
        ([2], 1, 2),
        ([2], 2, 1),
        ([2], 5, 1),
        ([8, 8], 3, 4),
        ([16, 4], 2, 8),
        ([16, 0], 1, 16),
        ([], 1, 1),
    ],
)
def test_captioners_on_cpus_share_the_machines(
    machines: list[int], workers: int, cpus: int
) -> None:
    assert share_of_cpus(machines, workers) == cpus
