"""`caplab train` as a person calls it: plan and sheet, caches, several processes, more steps."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.base.settings import load_settings
from curate.store.dataset import Dataset
from pipelines.bench.common.children import tied
from pipelines.commands.compare import compare
from pipelines.commands.train import TrainCommandSettings, plan, train, write_caches
from pipelines.commands.train_sheet import split_at_window
from tests.train.data.small_dataset import add_captions, add_scores, make_dataset, nulls

BLEND = {"descriptive": 0.75, "short": 0.25}
HOSTILE = '</p><script>window.stolen=1</script>"><img src=x onerror="window.stolen=2">\u202e'


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("train") / "data", 80)


def told(**changes: object) -> TrainCommandSettings:
    given = {"selection": "all", "captions": BLEND, "model": "tiny-test", "cpus": 1}
    return load_settings(TrainCommandSettings, None, {**given, "runner": "local", **changes})


def losses(run: Path) -> list[float]:
    return pq.read_table(run / "metrics.parquet").column("loss").to_pylist()


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps in this process."""
    run = tmp_path_factory.mktemp("runs") / "one"
    assert train(dataset.directory, run, told(steps=6)).steps == 6
    return run


# ---- plan and sheet -----------------------------------------------------------------------------


def test_a_name_of_before_is_answered_with_that_of_now() -> None:
    for old, new in (("prediction", "prediction_type"), ("warmup_share", "warmup_steps")):
        with pytest.raises(ConfigError, match=f"is called {new} now"):
            told(**{old: 1})


def test_a_batch_that_does_not_divide_is_refused_before_anything_starts(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="does not divide into 3 processes"):
        plan(dataset.directory, told(processes=3))


def test_the_sheet_shows_what_the_run_will_draw_and_texts_stay_texts(tmp_path: Path) -> None:
    own = make_dataset(
        tmp_path / "data", 60, sizes=((64, 64), (96, 48), (48, 96)), kind="jpg", words=12
    )
    keys = own.selection_keys("all")
    add_scores(own, aesthetic={key: float(i) for i, key in enumerate(keys)})
    _rewrite_captions(own, HOSTILE)
    sheet = tmp_path / "sheet.html"
    settings = told(
        captions={"descriptive": 1.0},
        resolution=64,
        aspect_buckets=True,
        bucket_step=16,
        condition_on=("aesthetic",),
        prompt_dropout_prob=0.3,
        allow_unknown_words=True,
        steps=20,
    )
    assert str(sheet) in plan(own.directory, settings, sheet)
    html = sheet.read_text()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\u202e" not in html
    for words in ("dropped", "cut off", "aesthetic", "stored as 96 x 48", "&lt;/s&gt;"):
        assert words in html, words


def _rewrite_captions(dataset: Dataset, text: str) -> None:
    from curate.store.contract import CAPTIONS

    for shard in dataset.shards():
        table = dataset.read_table("captions", shard, "vlm")
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        columns["text"] = [f"{text} {own}" for own in columns["text"]]
        dataset.write_table("captions", nulls(CAPTIONS, columns), shard, "vlm")


def test_the_end_of_a_caption_that_is_not_read_is_found_word_by_word() -> None:
    class Four:
        def cut(self, texts):
            return [len(text.split()) > 4 for text in texts]

        def pieces(self, text):
            return text.split()

    assert split_at_window(Four(), "a b c d e f") == ("a b c d", " e f")
    assert split_at_window(Four(), "a b c d e") == ("a b c d", " e")


# ---- caches -------------------------------------------------------------------------------------


def test_caches_are_told_before_they_are_written_and_a_run_from_them_is_the_same(
    finished: Path, tmp_path: Path
) -> None:
    own = make_dataset(tmp_path / "data", 80)
    assert "80 of 80" not in str(write_caches(own.directory, told(), dry_run=True))
    assert not list((own.directory / "training").glob("pictures-*"))
    assert "MB" in str(write_caches(own.directory, told(), dry_run=False))
    (manifest,) = (own.directory / "training").glob("pictures-*/manifest.json")
    train(own.directory, tmp_path / "run", told(steps=6))
    assert losses(tmp_path / "run") == losses(finished)
    assert manifest.exists()


# ---- several processes --------------------------------------------------------------------------


def same_run(run: Path, finished: Path) -> None:
    receipts = [pq.read_table(each / "receipt.parquet") for each in (run, finished)]
    assert receipts[0].equals(receipts[1])
    assert losses(run) == pytest.approx(losses(finished), rel=1e-4)


def test_two_processes_of_this_machine_train_the_run_of_one(
    dataset: Dataset, finished: Path, tmp_path: Path
) -> None:
    assert train(dataset.directory, tmp_path / "two", told(steps=6, processes=2)).steps == 6
    same_run(tmp_path / "two", finished)


# Two command lines beside the launcher are dear, and `processes` trains the same way above.
@pytest.mark.faults
def test_torchrun_trains_the_run_of_one_and_only_the_first_process_speaks(
    dataset: Dataset, finished: Path, tmp_path: Path
) -> None:
    command = f"{sys.executable} -m torch.distributed.run --nproc-per-node 2 -m pipelines.cli train"
    options = "--selection all --captions descriptive=0.75,short=0.25 --model tiny-test --cpus 1"
    own = (str(dataset.directory), "--steps", "6", "--out", str(tmp_path / "two"))
    ended = subprocess.run(
        tied([*command.split(), *options.split(), *own]),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("6 steps done") == 1
    assert ended.stderr.count("reading selection") == 1
    same_run(tmp_path / "two", finished)


# ---- more steps, and comparing ------------------------------------------------------------------


def test_a_finished_run_is_given_more_steps_by_the_same_command(
    dataset: Dataset, tmp_path: Path
) -> None:
    assert "4 steps done" in train(dataset.directory, tmp_path / "run", told(steps=4)).text()
    longer = train(dataset.directory, tmp_path / "run", told(steps=8))
    assert longer.text().startswith("steps 4 to 8 done; validation loss")
    again = train(dataset.directory, tmp_path / "run", told(steps=8))
    assert again.text().startswith("8 steps done")


def test_runs_that_differ_in_captions_alone_are_compared_and_no_others(
    dataset: Dataset, finished: Path, tmp_path: Path
) -> None:
    train(dataset.directory, tmp_path / "short", told(steps=6, captions={"short": 1.0}))
    found = compare(finished, tmp_path / "short")
    assert found.shares["short"][1] == 1.0
    assert set(found.settings) == {"settings.captions.descriptive", "settings.captions.short"}
    assert "one run each: exploratory" in found.text()
    train(dataset.directory, tmp_path / "seed", told(steps=6, seed=1))
    with pytest.raises(DatasetError, match=r"more than their captions \(settings.seed: 0 and 1"):
        compare(finished, tmp_path / "seed")


def test_captions_of_people_for_a_few_pictures_are_blended_and_what_fell_back_is_told(
    tmp_path: Path,
) -> None:
    own = make_dataset(tmp_path / "data", 80)
    add_captions(
        own, "imported-all", "human", dict.fromkeys(own.selection_keys("all")[::10], "red")
    )
    blend = {"captions": {"human": 0.5, "short": 0.5}, "steps": 2}
    with pytest.raises(ConfigError, match=r"have no human caption; .* to fallback to show them"):
        plan(own.directory, told(**blend))
    falls_back = told(**blend, missing_captions="fallback")
    text = plan(own.directory, falls_back, tmp_path / "sheet.html")
    assert "human: 50% of the blend, 7 pictures have one; 5.0% of the draws will take it" in text
    assert "for want of human" in (tmp_path / "sheet.html").read_text()
    summary = train(own.directory, tmp_path / "human", falls_back)
    assert summary.blend.get("human", 0) < 0.3
    assert summary.fell_back > 0.1
    assert f"{summary.fell_back:.1%} of the draws fell back" in summary.text()
    train(own.directory, tmp_path / "short", told(steps=2, captions={"short": 1.0}))
    found = compare(tmp_path / "short", tmp_path / "human")
    assert found.settings["settings.missing_captions"] == ("refuse", "fallback")
    assert found.shares["short"] == (1.0, summary.blend["short"])


def test_a_run_whose_receipt_is_not_what_it_declared_is_not_compared(
    dataset: Dataset, finished: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    train(dataset.directory, other, told(steps=6, captions={"short": 1.0}))
    receipt = other / "receipt.parquet"
    table = pq.read_table(receipt)
    pq.write_table(table.slice(1), receipt)
    with pytest.raises(DatasetError, match="is not what was declared"):
        compare(finished, other)
