"""A study grows: what is there stays as it is, and what is missing alone is made."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from curate.base.errors import DatasetError
from curate.base.files import read_json
from curate.base.settings import load_settings
from curate.store.dataset import Dataset
from curate.store.lock import hold
from pipelines.ablation.evaluate import evaluate, judge_kept
from pipelines.ablation.run import AblationSummary, ablate
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import prompts_of
from pipelines.bench.common.children import tied
from tests.train.data.small_dataset import make_dataset

OWN = "examples.judge_of_your_own:ColourJudge"
FIRST = {
    "arms": {"alt": {"alt": 1.0}},
    "seeds": [0],
    "noises": 1,
    "selection": "all",
    "train": {"model": "tiny-test", "resolution": 32, "steps": 3},
    "prompts": {"scenes": 4, "forms": ["descriptive", "short"], "wordings": ["captioner"]},
    "workers": 1,
    "runner": "local",
    "allow_unknown_words": True,
}
BOTH = {"alt": {"alt": 1.0}, "descriptive": {"descriptive": 0.95, "alt": 0.05}}


def study(dataset: Path, out: Path, **changes: object) -> AblationSummary:
    return ablate(dataset, out, load_settings(AblateSettings, None, {**FIRST, **changes}))


def times(folder: Path) -> dict[Path, int]:
    """When each file below a folder was written."""
    found = [path for path in folder.rglob("*") if path.is_file() and ".locks" not in path.parts]
    return {path: path.stat().st_mtime_ns for path in found}


def table(out: Path, name: str) -> pa.Table:
    return pq.read_table(out / "results" / f"{name}.parquet")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("growing")
    return make_dataset(folder / "data", 24, sizes=((32, 32),))


@pytest.fixture(scope="module")
def grown(dataset: Dataset, one_process: None) -> Path:
    """A study of one run, to which an arm, then noises, a judge and a contrast were added."""
    out = dataset.directory.with_name("study")
    study(dataset.directory, out)
    (first,) = (out / "runs").glob("alt-*/seed-0")
    images, before = table(out, "images"), times(first)
    assert before.keys() >= {first / "summary.json", first / "asked.parquet"}
    sets = {"mixed": {"of": "descriptive", "rule": "shuffle"}}
    arms = {"alt": {"alt": 1.0}, "mixed": {"mixed": 1.0}}
    study(dataset.directory, out, arms=arms, caption_sets=sets, contrasts=[])
    # The new caption set is another index and another vocabulary-free file, and no other run.
    assert times(first) == before
    more = {"arms": arms, "caption_sets": sets, "noises": 2, "judges": ["world", OWN]}
    study(dataset.directory, out, **more, contrasts=[["mixed", "alt"]])
    after = times(first)
    written = {path for path in after if after[path] != before.get(path)}
    assert {path.parent.name for path in written - {first / "asked.parquet"}} == {
        "pictures",
        *(path.name for path in (first / "judged").iterdir()),
    }
    kept = [path for path in before if path.name != "asked.parquet"]
    assert all(after[path] == before[path] for path in kept)
    now = table(out, "images")
    assert now.num_rows == 4 * images.num_rows
    assert "colour_share" in now.column_names
    old = images.to_pylist()[0]
    (again,) = [
        r for r in now.to_pylist() if (r["arm"], r["picture_id"]) == ("alt", old["picture_id"])
    ][:1]
    assert {name: again[name] for name in old if old[name] == old[name]}.items() <= old.items()
    return out


def test_what_was_declared_when_results_were_there_is_told(grown: Path) -> None:
    (told,) = [limit for limit in read_json(grown / "run.json")["limits"] if "Declared on" in limit]
    assert "mixed against alt on descriptive prompts" in told


def test_another_name_and_a_moved_dataset_change_nothing_that_was_made(
    grown: Path, dataset: Dataset, tmp_path: Path
) -> None:
    moved = shutil.copytree(dataset.directory, tmp_path / "elsewhere")
    runs = times(grown / "runs")
    out = tmp_path / "other"
    # Its own study, of the same runs under other names.
    shared = {"arms": {"web": {"alt": 1.0}}, "runs": str(grown / "runs")}
    study(moved, out, **shared)
    assert times(grown / "runs") == runs
    assert not (out / "runs").exists()
    assert table(out, "images")["arm"].to_pylist() == ["web"] * table(out, "images").num_rows


def test_what_is_no_longer_declared_is_told_and_stays(
    grown: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(grown, tmp_path / "study")
    runs = times(out / "runs")
    study(dataset.directory, out)
    assert "1 run no longer of this study" in capsys.readouterr().err
    assert read_json(out / "study.json")["left"] == [
        str(next((out / "runs").glob("mixed-*/seed-0")).relative_to(out))
    ]
    assert times(out / "runs") == runs
    assert set(table(out, "images")["arm"].to_pylist()) == {"alt"}


def test_a_judge_may_look_later_at_a_study_and_at_a_run(grown: Path, tmp_path: Path) -> None:
    out = shutil.copytree(grown, tmp_path / "study")
    text = str(judge_kept(out, OWN, {"gain": 2.0}, "cpu"))
    assert "colour share" in text
    first, second = (table(place, "images")["colour_share"].to_numpy() for place in (grown, out))
    assert (first != second)[first == first].any()
    (run,) = (out / "runs").glob("alt-*/seed-0")
    assert "colour share" in str(judge_kept(run, OWN, {"gain": 3.0}, "cpu"))
    with pytest.raises(DatasetError, match="no kept pictures"):
        judge_kept(tmp_path, OWN, {}, "cpu")


def test_one_run_is_evaluated_on_other_prompts_with_what_it_drew_already(
    grown: Path, tmp_path: Path
) -> None:
    (run,) = (grown / "runs").glob("alt-*/seed-0")
    run = shutil.copytree(run.parent, tmp_path / run.parent.name) / "seed-0"
    before = times(run / "pictures")
    asked = prompts_of({**FIRST["prompts"], "scenes": 6})  # type: ignore[dict-item]
    text = evaluate(run, asked, {"world": {}})
    assert "one model: exploratory" in str(text)
    assert before.items() <= times(run / "pictures").items()
    drawn = pq.read_table(run / "evaluation.parquet")
    assert drawn.num_rows == asked.num_rows
    old = pq.read_table(grown / "results" / "images.parquet")
    assert set(drawn["picture_id"].to_pylist()) & set(old["picture_id"].to_pylist())


def test_two_writers_of_one_study_and_a_strange_folder_are_refused(
    dataset: Dataset, tmp_path: Path
) -> None:
    with hold(tmp_path / "out"), pytest.raises(DatasetError, match="being written by another run"):
        study(dataset.directory, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is not a study of ours"):
        study(dataset.directory, tmp_path / "mine")


# What is there when the command is killed: training, drawing and judging are under way.
MOMENTS: tuple[Callable[[Path], bool], ...] = (
    lambda out: any(out.glob("runs/*/seed-0/receipt")),
    lambda out: any(out.glob("runs/*/seed-0/summary.json")),
    lambda out: any(out.glob("runs/*/seed-0/pictures/*.parquet")),
    lambda out: any(out.glob("runs/descriptive-*/seed-0/judged/*/*.parquet")),
)


@pytest.mark.faults
def test_kills_at_any_moment_change_no_table(dataset: Dataset, tmp_path: Path) -> None:
    given = {**FIRST, "arms": BOTH, "prompts": {**FIRST["prompts"], "scenes": 160}}  # type: ignore[dict-item]
    given |= {"contrasts": [["descriptive", "alt"]]}
    arms, killed = tmp_path / "arms.yaml", tmp_path / "killed"
    arms.write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "pipelines.cli", "ablate", dataset.directory]
    command += ["--arms", arms, "--out", killed]
    for moment in MOMENTS:
        if moment(killed):
            continue  # the last kill came late enough for this one, too
        driver = subprocess.Popen(
            tied(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not moment(killed):
            assert driver.poll() is None, "the command ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    subprocess.run(tied(command), check=True, capture_output=True)
    study(dataset.directory, tmp_path / "unbroken", **given)
    tables = sorted((tmp_path / "unbroken" / "results").iterdir())
    assert len(tables) == 10
    for path in tables:
        assert path.read_bytes() == (killed / "results" / path.name).read_bytes(), path.name
