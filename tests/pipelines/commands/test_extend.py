"""`caplab curate --extend` through the whole road, over real HTTP: what a further list changes."""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from curate.export.run import export
from curate.export.settings import ExportSettings
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from pipelines import cli
from pipelines.commands.check import check_dataset
from pipelines.commands.curate import CurateSettings, curate
from pipelines.runners.local import Local
from tests.curate.download.hostile_server import hostile_server
from tests.curate.tiny import drawn, tiny_clip

pytestmark = pytest.mark.usefixtures("one_process")


def listed(path: Path, rows: list[tuple[str, str]]) -> Path:
    pq.write_table(pa.table({"url": [u for u, _ in rows], "text": [t for _, t in rows]}), path)
    return path


def shard_tables(dataset: Dataset) -> dict[str, list[dict]]:
    found = sorted(dataset.directory.glob("tables/*/**/0*.parquet"))
    return {str(p.relative_to(dataset.directory)): pq.read_table(p).to_pylist() for p in found}


def state(dataset: Dataset) -> dict[str, bytes]:
    """Every file but locks, by path."""
    files = [path for path in dataset.directory.rglob("*") if path.is_file()]
    return {str(p.relative_to(dataset.directory)): p.read_bytes() for p in files}


def test_a_further_list_and_a_folder_join_and_what_was_made_before_stays(tmp_path, monkeypatch):
    config, weights = tiny_clip(tmp_path / "clip")
    settings = CurateSettings(
        rows_per_shard=4,
        image_size=32,
        min_side=16,
        clip_model=str(config),
        clip_pretrained=str(weights),
        near_bits=0,
        descriptor_similarity=None,
        embedding_similarity=None,
        where="width >= 16",
        retries=0,
        allow_private_addresses=True,
    )
    out = tmp_path / "data"
    with hostile_server() as server:
        rows = [(server.url(f"good/{n}"), f"picture {n}") for n in range(6)]
        first = listed(tmp_path / "first.parquet", [*rows[:5], (server.url("missing"), "gone")])
        curate(first, out, settings)
        dataset = Dataset.open(out)
        select(dataset, SelectSettings(name="mine", where="width >= 16"))
        exported = ExportSettings(selection="mine", captions={"alt": 1.0}, format="parquet")
        export(dataset, tmp_path / "hf", exported)
        mine = dataset.selection_path("mine").read_bytes()
        before = shard_tables(dataset)

        # Rows of the first list among three that are new, one of them with a URL that is known.
        more = [rows[3], (server.url("good/0"), "the same picture"), rows[5], rows[0]]
        further = listed(tmp_path / "more.parquet", [*more, (server.url("good/9"), "nine")])
        with pytest.raises(DatasetError, match=r"was made from .*first\.parquet; with --extend"):
            curate(further, out, settings)
        server.requests.clear()
        argv = ["caplab", "curate", str(further), "--out", str(out), "--extend"]
        monkeypatch.setattr(sys, "argv", argv)  # every setting is the dataset's own
        cli.run()
        # What is stored of a URL is not asked for again under another text.
        assert server.requests == {"/good/5": 1, "/good/9": 1}
        after = shard_tables(dataset)
        assert {path: after[path] for path in before} == before
        assert [row["row"] for row in after["tables/samples/00002.parquet"]] == [1, 2, 4]
        copies = {row["key"] for row in dataset.read_table("duplicates").to_pylist()}
        assert copies == {after[f"tables/samples/0000{n}.parquet"][0]["key"] for n in (0, 2)}
        assert dataset.selection_record("default")["selected"] == 7
        # What was made before is whole, and says that it rests on older tables.
        assert dataset.selection_path("mine").read_bytes() == mine
        with pytest.raises(ConfigError, match="an earlier state of the tables"):
            select(dataset, SelectSettings(name="mine", where="width >= 16"))
        with pytest.raises(DatasetError, match="captions by alt was"):
            export(dataset, tmp_path / "hf", exported)
        whole = state(dataset)
        cli.run()
        assert state(dataset) == whole

        folder = tmp_path / "pictures"
        folder.mkdir()
        for name in "ab":
            Image.fromarray(drawn(ord(name), 48, 48)).save(folder / f"{name}.png")
        folder.joinpath("a.txt").write_text("drawn")
        server.requests.clear()
        summary = curate(folder, out, CurateSettings(), extend=True)
        assert "2 rows joined with this list" in summary.accounting
        assert not server.requests
        assert check_dataset(out).whole
        for lost in ("shards/00003.tar", "tables/scores/00002.parquet", "input/input-00002.json"):
            (out / lost).unlink()
        assert not check_dataset(out).whole
        assert check_dataset(out, repair=True, runner=Local(processes=False)).whole
        # The first list goes on without the word, and with --retry-failed over all lists of URLs.
        curate(first, out, settings, retry_failed=True)


def test_there_must_be_a_dataset_to_extend(tmp_path):
    with pytest.raises(DatasetError, match="without --extend one is made there"):
        curate(tmp_path / "x.parquet", tmp_path / "none", CurateSettings(), extend=True)
