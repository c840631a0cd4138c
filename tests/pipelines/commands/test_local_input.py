"""Pictures that are here already, from the command to the export."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.accounting import accounting
from curate.store.dataset import Dataset
from pipelines import cli
from pipelines.commands.curate import CurateSettings, curate
from pipelines.world import weights
from tests.curate.intake.test_local_pictures import jpeg, write_tar

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture
def caplab(monkeypatch, capsys):
    """Run the command as the console script does; returns what it printed."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["caplab", *map(str, arguments)])
        cli.run()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Two tars: 12 good samples with LAION's scores, one without picture, one with a broken one."""
    folder = tmp_path_factory.mktemp("tars")
    for number in range(2):
        members = []
        for n in range(7 * number, 7 * number + 7):
            fields = {"url": f"http://a/{n}.jpg", "punsafe": n / 20}
            picture = {5: None, 9: b"no picture"}.get(n, jpeg(n))
            if picture is not None:
                members.append((f"{n:04d}.jpg", picture))
            members.append((f"{n:04d}.json", json.dumps(fields).encode()))
            members.append((f"{n:04d}.txt", f"a picture, number {n}".encode()))
        write_tar(folder / f"{number:05d}.tar", members)
    return folder


SETTINGS = {
    "clip_model": f"local-dir:{weights.clip_dir()}",
    "clip_pretrained": None,
    "image_size": 64,
    "rows_per_shard": 5,
    "runner": "local",
    "workers": 1,
    "where": "imported_punsafe < 0.5",
}


def test_a_dry_run_tells_what_was_recognised(caplab, tars, tmp_path):
    options = ("--clip-model", SETTINGS["clip_model"], "--clip-pretrained", "none")
    printed = caplab("curate", tars, "--out", tmp_path / "out", *options, "--dry-run")
    assert "input: WebDataset tars" in printed
    assert "imported as scores: punsafe as imported_punsafe" in printed
    assert "14 rows in 1 shard of" in printed
    assert not (tmp_path / "out").exists()


def test_curating_again_keeps_how_the_first_selection_was_balanced(tars, tmp_path):
    out = tmp_path / "set"
    curate(tars, out, CurateSettings(**SETTINGS))
    dataset = Dataset.open(out)
    balance = {"balance": "imported_punsafe < 0.3", "cap": 2, "overwrite": True}
    stored = dataset.selection_record("default")["settings"] | balance
    select(dataset, SelectSettings(**stored))
    content = dataset.selection_path("default").read_bytes()
    assert "at most 2 a group" in curate(tars, out, CurateSettings(**SETTINGS)).text()
    assert dataset.selection_path("default").read_bytes() == content


def test_tars_are_curated_selected_by_their_own_scores_and_exported(caplab, tars, tmp_path):
    out = tmp_path / "set"
    summary = curate(tars, out, CurateSettings(**SETTINGS))
    assert "no_picture 1" in summary.accounting
    before = {path: path.stat().st_mtime_ns for path in out.glob("tables/s*/*.parquet")}
    curate(tars, out, CurateSettings(**SETTINGS))
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("tables/s*/*.parquet")}
    counts = accounting(Dataset.open(out))
    assert (counts["rows"], counts["stored"], counts["balanced"]) == (14, 12, True)
    assert counts["reasons"] == {"no_picture": 1, "not_an_image": 1}
    selected = Dataset.open(out).selection_keys("default")
    scores = pq.read_table(out / "tables" / "scores").to_pylist()
    assert {s["key"] for s in scores if s["imported_punsafe"] < 0.5} >= set(selected)
    printed = caplab(
        "export", out, "--captions", "alt", "--format", "parquet", "--out", tmp_path / "hf"
    )
    assert f"{len(selected)} selected = {len(selected)} exported" in printed
    exported = pa.concat_tables(pq.read_table(f) for f in sorted((tmp_path / "hf").glob("data/*")))
    assert sorted(exported.column("key").to_pylist()) == selected
    assert set(exported.column("text").to_pylist()) <= {f"a picture, number {n}" for n in range(14)}
