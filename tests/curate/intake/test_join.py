"""A list that grew, or a further one, joins a dataset with the rows whose keys are new to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from curate.download.mend import restore_lists
from curate.intake.inspection import inspect_input
from curate.intake.lists.join import join_list
from curate.intake.lists.record import read_intake, read_intakes
from curate.intake.read import plan_shards
from curate.store.accounting import accounting
from curate.store.contract import SAMPLES, sample_key
from curate.store.dataset import Dataset
from curate.store.file_faults import are_cut_so
from curate.store.holes import find_holes

FIRST = [("http://a/1", "one"), ("http://a/2", "two"), ("http://a/1", "one"), (None, "three")]
SIZE = 3


def listed(path: Path, rows: list[tuple], **columns: list) -> Path:
    table = pa.table({"url": [u for u, _ in rows], "text": [t for _, t in rows], **columns})
    pq.write_table(table, path)
    return path


def made(folder: Path, rows: list[tuple] = FIRST, **columns: list) -> Dataset:
    """A dataset with its list, first.parquet, taken in."""
    source = inspect_input(listed(folder / "first.parquet", rows, **columns))
    dataset = Dataset.create(folder / "data", {"input": source.address, "rows_per_shard": SIZE}, {})
    plan_shards(source, dataset, rows_per_shard=SIZE)
    return dataset


def join(path: Path, dataset: Dataset) -> int:
    """Rows that joined, whether now or before."""
    return join_list(inspect_input(path), dataset, SIZE).rows


def rows(dataset: Dataset, *shards: str) -> list[tuple]:
    found = [pq.read_table(dataset.input_path(s)) for s in shards or dataset.shards()]
    return [(r["row"], r["url"], r["alt_text"]) for table in found for r in table.to_pylist()]


def rows_of(dataset: Dataset) -> list[tuple]:
    found = [pq.read_table(dataset.input_path(shard)) for shard in dataset.shards()]
    return [(table.schema.metadata, table.to_pylist()) for table in found]


def keys(dataset: Dataset) -> list[str]:
    found = [pq.read_table(dataset.input_path(s), columns=["key"]) for s in dataset.shards()]
    return pa.concat_tables(found).column("key").to_pylist()


def content(dataset: Dataset) -> dict[str, bytes]:
    files = [p for p in (dataset.directory / "input").iterdir() if not p.name.startswith(".")]
    return {p.name: p.read_bytes() for p in [*files, dataset.record_path]}


def test_only_new_rows_join_whatever_the_order_and_each_list_once(tmp_path):
    dataset = made(tmp_path)
    before = content(dataset)
    # Turned round, one row removed, one twice more, and five that are new.
    new = [(f"http://b/{n}", "new") for n in range(4)]
    grown = [new[0], *reversed(FIRST[:3]), ("http://a/1", "one"), *new[1:], ("http://a/2", "2")]
    path = listed(tmp_path / "grown.parquet", grown)
    assert join(path, dataset) == 6
    assert dataset.shards() == ["00000", "00001", "00002", "00003"]
    assert rows(dataset, "00002", "00003") == [
        (0, *new[0]),
        (4, "http://a/1", "one"),
        *((5 + n, *row) for n, row in enumerate(new[1:])),
        (8, "http://a/2", "2"),
    ]
    assert sample_key("http://a/1", "one", 2) in keys(dataset)
    assert len(set(keys(dataset))) == 10
    after = content(dataset)
    assert {name: after[name] for name in before if name.startswith("0")} == {
        name: raw for name, raw in before.items() if name.startswith("0")
    }
    told = json.loads(after["dataset.json"])["lists"]
    assert [(one["first_shard"], one["last_shard"], one["rows"], one["known"]) for one in told] == [
        ("00000", "00001", 4, 0),
        ("00002", "00003", 6, 3),
    ]
    note = pq.read_schema(dataset.input_path("00003")).metadata[b"caplab_list"]
    assert json.loads(note) == {"input": str(path), "first_shard": 2}
    assert join(path, dataset) == 6
    os.utime(path)
    assert join(tmp_path / "first.parquet", dataset) == 4
    assert content(dataset) == after
    assert read_intake(dataset, "00001").known == 0
    assert read_intake(dataset, "00003").known == 3
    assert all(
        are_cut_so(dataset, s, [r for r, _, _ in rows(dataset, s)]) for s in dataset.shards()
    )
    assert not are_cut_so(dataset, "00003", [5, 6])
    assert not find_holes(dataset)
    counts = accounting(dataset)
    assert (counts["rows"], counts["pending"]) == (10, 10)


def test_a_list_that_grew_where_it_lies_joins_by_its_own_name(tmp_path):
    dataset = made(tmp_path)
    grown = inspect_input(listed(tmp_path / "first.parquet", [*FIRST, ("http://a/3", "x")]))
    with pytest.raises(DatasetError, match="--extend takes in the rows that are new"):
        plan_shards(grown, dataset, rows_per_shard=SIZE)
    assert join_list(grown, dataset, SIZE).rows == 1
    assert plan_shards(grown, dataset, rows_per_shard=SIZE).rows == 1  # goes on without the word
    assert rows(dataset, "00002") == [(4, "http://a/3", "x")]
    nothing_new = listed(tmp_path / "less.parquet", FIRST[1:3])
    before = content(dataset)
    assert join(nothing_new, dataset) == 0
    assert content(dataset) == before
    assert not (dataset.directory / "joining").exists()


def test_the_same_place_in_another_folder_is_another_picture(tmp_path):
    for folder, names in (("a", "xy"), ("b", "xz")):
        (tmp_path / folder).mkdir()
        for name in names:
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{name}.png")
    dataset = Dataset.create(tmp_path / "data", {}, {})
    plan_shards(tmp_path / "a", dataset)
    assert join(tmp_path / "b", dataset) == 2
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "w.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b" / "w.png")
    assert join(tmp_path / "a", dataset) == 1
    assert join(tmp_path / "b", dataset) == 1
    assert len(set(keys(dataset))) == 6
    assert [Path(one.root).name for one in read_intakes(dataset)] == ["a", "b", "a", "b"]


def test_scores_of_another_form_are_refused_before_anything_is_written(tmp_path):
    dataset = made(tmp_path, punsafe=[0.5] * 4)
    words = listed(tmp_path / "w.parquet", [("http://c/1", "c")], punsafe=["LIKELY"])
    before = content(dataset)
    with pytest.raises(ConfigError, match=r"w\.parquet has texts in imported_punsafe.* numbers"):
        join(words, dataset)
    assert content(dataset) == before
    digits = listed(tmp_path / "d.parquet", [("http://c/1", "c")], punsafe=["0.25"])
    assert join(digits, dataset) == 1


def test_lost_rows_and_records_of_every_list_are_read_again(tmp_path):
    dataset = made(tmp_path)
    join(listed(tmp_path / "b.parquet", [(f"http://b/{n}", "b") for n in range(5)]), dataset)
    join(listed(tmp_path / "c.parquet", [(f"http://{n}/4", "b") for n in "bc"]), dataset)
    before = content(dataset)
    for lost in ("00001.parquet", "00002.parquet", "input-00002.json", "00004.parquet"):
        (dataset.directory / "input" / lost).unlink()
    holes = find_holes(dataset)
    # A lost record hides which shards its list has.
    assert {hole.name for hole in holes} == {"00001", "input-00002.json", "00004"}
    restore_lists(dataset, holes, SIZE)
    assert content(dataset) == before


def test_lost_rows_of_a_list_that_has_grown_since_are_found_by_their_keys(tmp_path):
    dataset = made(tmp_path)
    second, first, *rest = FIRST
    grown = [first, ("http://b/1", "b"), *rest, second]
    grown[3:] = [rest[1], rest[0], second]  # a row without a URL is known by its place
    join(listed(tmp_path / "first.parquet", grown), dataset)
    join(listed(tmp_path / "first.parquet", [*grown, ("http://b/2", "b")]), dataset)
    for shard in dataset.shards():
        given = pq.read_table(dataset.input_path(shard), columns=["key", "row"]).to_pylist()
        dataset.write_table("samples", pa.Table.from_pylist(given, schema=SAMPLES), shard)
    assert dataset.shards() == ["00000", "00001", "00002", "00003"]
    before, told = content(dataset), rows_of(dataset)
    for lost in ("00000", "00001", "00002"):
        dataset.input_path(lost).unlink()
    # Rows of another list are nobody's.
    listed(tmp_path / "first.parquet", grown[1:])
    with pytest.raises(DatasetError, match="is not the list any more"):
        restore_lists(dataset, find_holes(dataset), SIZE)
    assert content(dataset).keys() == before.keys() - {f"0000{n}.parquet" for n in range(3)}
    listed(tmp_path / "first.parquet", [*grown, ("http://b/2", "b"), ("http://b/3", "b")])
    restore_lists(dataset, find_holes(dataset), SIZE)
    assert rows_of(dataset) == told
    assert content(dataset).keys() == before.keys()


KILLER = """
import os, shutil, signal, sys
from pathlib import Path
import duckdb, pandas  # which each child would import anew
from curate.store.dataset import Dataset
from test_join import join

def step():
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(function):
    def run(*arguments, **named):
        step()
        result = function(*arguments, **named)
        step()
        return result
    return run

origin, further, copies = map(Path, sys.argv[1:])
for moment in range(400):
    copy = copies / f"{moment:03d}"
    shutil.copytree(origin, copy)
    child = os.fork()
    if child == 0:
        left = moment
        for owner, name in ((os, "replace"), (Path, "replace"), (Path, "unlink")):
            setattr(owner, name, counted(getattr(owner, name)))
        shutil.rmtree = counted(shutil.rmtree)
        join(further, Dataset(copy))
        os._exit(0)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        break
"""


@pytest.mark.faults
def test_a_kill_at_any_moment_and_the_same_call_give_what_an_unbroken_one_gives(tmp_path):
    dataset = made(tmp_path)
    before = content(dataset)
    (tmp_path / "copies").mkdir()
    further = listed(tmp_path / "more.parquet", [(f"http://b/{n}", "b") for n in range(4)])
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [sys.executable, "-c", KILLER, dataset.directory, further, tmp_path / "copies"],
        env={**os.environ, "PYTHONPATH": here},
        check=True,
        timeout=120,
    )
    moments = [Dataset(copy) for copy in sorted((tmp_path / "copies").iterdir())]
    after = content(moments[-1])
    assert len(after) == len(before) + 3  # two shards and their record
    assert len(moments) > 20
    assert {len(content(copy)) - len(before) for copy in moments} == {0, 1, 2, 3}
    for copy in moments:
        join(further, copy)
        assert content(copy) == after, copy
        assert not (copy.directory / "joining").exists()
