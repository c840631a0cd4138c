"""Parquet lists with columns of any type and any name are taken in, shard and sidecar."""

import csv
import datetime
import decimal
import io
import json
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError
from curate.intake.read import plan_shards
from curate.pictures.resize import Resizer
from curate.pictures.settings import PictureSettings
from curate.store.dataset import Dataset
from curate.store.sample_view import sample_view
from curate.store.write_samples import Spool, sample_members
from tests.curate.scored import make_scored
from tests.curate.tiny import drawn, encoded

FAR = 10**15  # ms, in the year 33658


def sidecars(path: Path, folder: Path) -> list[dict]:
    """KEY.json of every row of a list, as if its picture had been stored; a row a shard."""
    dataset = Dataset(folder)
    intake = plan_shards(path, dataset, rows_per_shard=1)
    assert not intake.broken
    spool = Spool(io.BytesIO())
    image = spool.add(Resizer(PictureSettings(image_size=32)).store(encoded(drawn(0, 32, 32))))  # type: ignore[arg-type]
    found = []
    for shard in dataset.shards():
        rows = pq.read_table(dataset.input_path(shard))
        for _, members in sample_members(rows, [image], spool):
            found.append(json.loads(members["json"]))
    return found


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        (pa.array(["a"], pa.string_view()), "a"),
        (pa.array(["a"], pa.large_string()), "a"),
        (pa.array(["a"]).dictionary_encode(), "a"),
        (pa.array([b"a\xff"], pa.binary_view()), "61ff"),
        (pa.array([b"ab"], pa.binary(2)), "ab"),
        (pa.array([["a"]], pa.list_view(pa.string_view())), ["a"]),
        (pa.array([[1]], pa.large_list(pa.int8())), [1]),
        (pa.array([decimal.Decimal("1" * 50)], pa.decimal256(60, 2)), "1" * 50 + ".00"),
        (pa.array([decimal.Decimal("1.10")], pa.decimal128(9, 2)), "1.10"),
        (pa.array([0.5], pa.float16()), 0.5),
        (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
        (pa.array([90], pa.duration("s")), "0:01:30"),
        (pa.array([2**62], pa.duration("s")), "4611686018427387904 s"),
        (pa.array([90], pa.time32("s")), "00:01:30"),
        (pa.array([{"a": {"b": [datetime.date(2020, 1, 2)]}}]), {"a": {"b": ["2020-01-02"]}}),
        (pa.nulls(1), None),
        (pa.array([uuid.UUID(int=1).bytes], pa.uuid()), str(uuid.UUID(int=1))),
        (pa.array([FAR], pa.timestamp("ms")), "33658-09-27 01:46:40.000"),
        (pa.array([-FAR], pa.timestamp("ms", "UTC")), "-29719-04-05 22:13:20.000Z"),
        (pa.array([2**62], pa.timestamp("ms")), "146140482-04-24 15:36:27.904"),
        (pa.array([2**31 - 1], pa.date32()), "5881580-07-11"),
        (
            pa.StructArray.from_arrays([pa.array([FAR], pa.timestamp("ms"))], ["t"]),
            {"t": "33658-09-27 01:46:40.000"},
        ),
        (
            pa.MapArray.from_arrays([0, 1], ["k"], pa.array([FAR], pa.timestamp("ms"))),
            [["k", "33658-09-27 01:46:40.000"]],
        ),
    ],
    ids=lambda value: str(value.type)[:40] if isinstance(value, pa.Array) else "",
)
def test_a_column_of_any_type_reaches_the_samples_sidecar(tmp_path, column, stored):
    table = pa.table({"url": ["u"], "text": ["t"], "own": column, "far": [FAR]})
    pq.write_table(table, tmp_path / "l.parquet")
    (found,) = sidecars(tmp_path / "l.parquet", tmp_path / "out")
    assert found["own"] == stored


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.binary()])
def test_urls_and_texts_may_have_any_type_of_text(tmp_path, kind):
    words = pa.array([b"u", b"v"]).cast(kind)
    pq.write_table(pa.table({"url": words, "text": words}), tmp_path / "l.parquet")
    assert [row["url"] for row in sidecars(tmp_path / "l.parquet", tmp_path / "out")] == ["u", "v"]


NAMES = ["filename", "file_row_number", "File_Row_Number", "file_index", "rowid", "shard", "row"]
NAMES += ["key", "KEY", "status", "reason", "failure", "identity", "source_file", "key.parquet"]
NAMES += ["field 0", "other_fields", "a.b", 'q"u', "it's", "sp ace", "\U0001f600", "width", ""]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_column_of_any_name_is_kept_under_it_or_behind_input(tmp_path, kind):
    names = [name for name in NAMES if name or kind != "csv"]
    rows = [{"url": "u", "text": "t", **{n: f"of {n}" for n in names}} for _ in range(3)]
    path = tmp_path / f"l.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    found = sidecars(path, tmp_path / "out")
    assert len({row["key"] for row in found}) == 3
    for row in found:
        for name in names:
            assert f"of {name}" in (row.get(name), row.get(f"input_{name}"))


def test_imported_scores_of_any_name_can_be_selected_on(tmp_path):
    names = ["imported_a.b", 'imported_q"u', "imported_sp ace", "imported_key.parquet"]
    rows = [{"key": f"{n:032x}", **dict.fromkeys(names, n / 2)} for n in range(3)]
    connection = sample_view(make_scored(tmp_path / "data", rows))
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        (count,) = connection.execute(
            f"SELECT count(*) FROM sample WHERE {quoted} >= 0.5"
        ).fetchall()[0]
        assert count == 2


def test_a_column_of_urls_that_are_no_texts_is_refused(tmp_path):
    pq.write_table(pa.table({"url": [["u"]], "text": ["t"]}), tmp_path / "l.parquet")
    with pytest.raises(ConfigError, match=r"'url' holds list<.*: string>, not one URL a row"):
        plan_shards(tmp_path / "l.parquet", Dataset(tmp_path / "out"))
