"""A dataset that is looked at while it is written, damaged or beyond writing to."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from PIL import Image
from view_page import Server, served

from curate.base.errors import ConfigError, DatasetError
from curate.store.dataset import Dataset
from pipelines.view import rows as rows_module
from pipelines.view.opened import Opened, find
from pipelines.view.order import Order
from pipelines.view.pictures import thumbnail
from pipelines.view.rows import make_order, rows_of_keys
from pipelines.view.tables import Tables, files_mark, tars_mark
from pipelines.view.thumbnails import Thumbnails


def keys_of(server: Server, show: str = "", **order: str) -> list[dict]:
    """All rows of an order."""
    made = server.get("/api/order", **order)
    rows = server.get("/api/window", order=made["order"], count=1000, show=show)["rows"]
    assert len(rows) == made["total"]
    return rows


def test_rows_come_in_any_order_with_nulls_last(server: Server, viewed: Dataset) -> None:
    stored = [row for s in viewed.shards() for row in viewed.read_table("samples", s).to_pylist()]
    stored = [row for row in stored if row["status"] == "stored"]
    found = keys_of(server, "url,aesthetic")
    assert [row["key"] for row in found] == [row["key"] for row in stored]
    assert found[0]["values"]["url"] == stored[0]["url"]
    assert (found[0]["width"], found[0]["text"]) == (stored[0]["width"], stored[0]["alt_text"])
    for down in ("", "1"):
        texts = [row["text"] for row in keys_of(server, sort="alt_text", down=down)]
        known = [text for text in texts if text is not None]
        assert len(known) < len(texts)
        assert texts == sorted(known, reverse=bool(down)) + [None] * (len(texts) - len(known))
    one, other = (keys_of(server, random=seed) for seed in ("1", "2"))
    assert one != other
    assert {row["key"] for row in one} == {row["key"] for row in other}
    good = {row["key"] for row in keys_of(server, selection="good")}
    assert good == set(viewed.selection_keys("good"))
    chosen = [stored[3]["key"], stored[1]["key"]]
    rows = rows_of_keys(server.opened, [*chosen, "nobody"], ["aesthetic"])
    assert [row["key"] for row in rows] == chosen


def test_about_tells_columns_ranges_and_counts(server: Server, viewed: Dataset) -> None:
    about = server.get("/api/about")
    columns = {column["name"]: column for column in about["columns"]}
    assert columns["nsfw"]["type"] == "number"
    assert 0 <= columns["nsfw"]["low"] < columns["nsfw"]["high"] <= 1
    assert (columns["duplicate"]["type"], columns["url"]["type"]) == ("bool", "text")
    assert about["stored"] + about["failed"] == 600
    assert [one["name"] for one in about["selections"]] == ["good"]
    assert about["selections"][0]["selected"] == len(viewed.selection_keys("good"))
    assert [one["kind"] for one in about["kinds"]] == ["descriptive"]
    assert {*about["marks"]} == {"descriptive", "human"}  # a mark may come at any time
    assert about["methods"] == ["embedding", "exact", "near"]
    assert about["pages"] == ["pictures", "rule", "copies", "captions", "search"]


def test_a_dataset_is_shown_from_its_first_picture_on(own: Dataset) -> None:
    parts = {name: own.directory / "tables" / name for name in ("samples", "scores")}
    for name, folder in parts.items():
        folder.rename(own.directory / name)
        folder.mkdir()
    shutil.rmtree(own.directory / "selections")

    def arrives(table: str, shard: str) -> None:
        name = f"{shard}.parquet"
        shutil.copy2(own.directory / table / name, parts[table] / name)
        server.opened.changed()

    with served(own.directory) as server:
        assert server.get("/api/about")["stored"] == 0
        assert keys_of(server) == []
        arrives("samples", "00000")
        assert 400 < server.get("/api/about")["stored"] < 500
        first = keys_of(server, "width", sort="width")
        with pytest.raises(DatasetError, match="no scores yet"):
            server.opened.sample_tables()
        arrives("scores", "00000")
        scored = keys_of(server, "aesthetic,duplicate", sort="aesthetic")
        assert len(scored) == len(first)
        assert {row["values"]["duplicate"] for row in scored} == {True, False}
        arrives("samples", "00001")
        waiting = keys_of(server, "aesthetic", sort="aesthetic", down="1")
        values = [row["values"]["aesthetic"] for row in waiting]
        assert values[len(first) :] == [None] * (len(values) - len(first)) != []
        arrives("scores", "00001")
        assert None not in [row["values"]["width"] for row in keys_of(server, "width")]
        assert len(keys_of(server)) == len(waiting)


def test_an_order_that_was_shown_is_made_again_when_the_tables_change(own: Dataset) -> None:
    with served(own.directory) as server:
        order = server.get("/api/order", sort="nsfw")
        samples = own.read_table("samples", "00001")
        own.write_table("samples", samples.slice(0, 10), "00001")
        own.write_table("scores", own.read_table("scores", "00001").slice(0, 5), "00001")
        server.opened.changed()
        shown = server.get("/api/window", order=order["order"], count=1000)
        assert len(shown["rows"]) == shown["total"] < order["total"]
        answer = httpx.get(f"{server.address}/api/window?order=0123456789abcdef")
        assert answer.status_code == 409


def test_thumbnails_are_made_once_and_outlive_damage(own: Dataset, viewed: Dataset) -> None:
    key = own.read_table("scores", "00000").column("key")[0].as_py()
    kept = own.directory / "view" / "pictures.sqlite"
    with served(own.directory) as server:
        mark = server.get("/api/about")["pictures"]
        small = httpx.get(f"{server.address}/thumbnail/{key}?edge=160&of={mark}")
        assert small.headers["content-type"] == "image/webp"
        assert "immutable" in small.headers["cache-control"]
        with Image.open(io.BytesIO(small.content)) as picture:
            assert max(picture.size) <= 160
        again = {"If-None-Match": small.headers["etag"]}
        assert httpx.get(f"{server.address}/thumbnail/{key}", headers=again).status_code == 304
        whole = httpx.get(f"{server.address}/picture/{key}")
        assert whole.headers["content-type"] == "image/jpeg"
        assert whole.content == next(iter(_pictures(own)))
        unknown = httpx.get(f"{server.address}/thumbnail/{'0' * 32}")
        assert (unknown.status_code, unknown.json()["error"][:9]) == (409, "No sample")
        # Not kept under an address of other pictures, or of these before they came anew.
        os.utime(own.shard_path("00000"))
        server.opened.changed()
        for of in ("", mark):
            address = f"{server.address}/thumbnail/{key}?edge=160&of={of}"
            assert httpx.get(address).headers["cache-control"] == "private, no-cache"
        assert len({mark, server.get("/api/about")["pictures"], tars_mark(viewed)}) == 3
    tar = own.shard_path("00000")
    aside = tar.rename(tar.with_suffix(".away"))
    with served(own.directory) as server:  # what was kept needs no tar
        assert httpx.get(f"{server.address}/thumbnail/{key}").content == small.content
        assert httpx.get(f"{server.address}/picture/{key}").status_code == 409
    aside.rename(tar)
    for damaged in (kept, *own.directory.glob("view/samples-*.duckdb")):
        damaged.write_bytes(b"no database at all" * 1000)
    with served(own.directory) as server:
        assert httpx.get(f"{server.address}/thumbnail/{key}").content == small.content
    assert sorted(path.name for path in (own.directory / "view").glob(".*")) == []


def _pictures(dataset: Dataset) -> list[bytes]:
    from curate.store.shards import iter_shard

    return [picture for _, picture, _ in iter_shard(dataset, "00000")]


def test_a_tar_that_is_written_anew_has_new_thumbnails(own: Dataset, tmp_path: Path) -> None:
    tar = own.shard_path("00001")
    key = own.read_table("scores", "00001").column("key")[0].as_py()
    kept = Thumbnails(own, tmp_path)
    content = kept.picture("00001", key)
    kept.keep("00001", key, 160, b"a thumbnail")
    assert kept.get("00001", key, 160) == b"a thumbnail"
    with tar.open("r+b") as opened:
        changed = opened.read().replace(key.encode(), b"f" * 32)
        opened.seek(0)
        opened.write(changed)
    assert kept.get("00001", key, 160) is None
    with pytest.raises(DatasetError, match="holds no picture"):
        kept.picture("00001", key)
    assert kept.picture("00001", "f" * 32) == content
    with pytest.raises(DatasetError, match="names no shard"):
        kept.picture("../../00001", key)
    with sqlite3.connect(tmp_path / "pictures.sqlite") as other:
        other.execute("DROP TABLE thumbnail")
    os.utime(tar, (1, 1))
    with pytest.raises(sqlite3.Error):
        kept.picture("00001", "f" * 32)
    Thumbnails(own, tmp_path).close()  # makes the table again
    assert kept.picture("00001", "f" * 32) == content  # what failed was taken back
    kept.close()


def test_what_is_no_picture_is_told(own: Dataset) -> None:
    with pytest.raises(DatasetError, match="cannot be decoded"):
        thumbnail(b"\xff\xd8\xffno picture", 160)
    own.shard_path("00000").write_bytes(b"no tar" * 1000)
    key = own.read_table("scores", "00000").column("key")[0].as_py()
    with served(own.directory) as server:
        answer = httpx.get(f"{server.address}/thumbnail/{key}")
        assert answer.status_code == 409
        assert "00000.tar" in answer.json()["error"]


def test_a_file_that_goes_away_is_no_accident(
    own: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [own.table_path("scores", "00001")]
    before = files_mark(own, ("scores",))
    own.table_path("embeddings", "00000").write_bytes(b"no Parquet")
    with served(own.directory) as server:
        answer = httpx.get(f"{server.address}/api/search/models")
        assert (answer.status_code, "caplab check" in answer.text) == (409, True)
        own.table_path("embeddings", "00000").unlink()
        own.table_path("embeddings", "00001").unlink()
        assert "searchable" in server.get("/api/about")
    listed[0].unlink()
    monkeypatch.setattr(Dataset, "table_files", lambda self, table: listed)
    assert files_mark(own, ("scores",)) != before


def test_failed_rows_are_counted_by_reason(server: Server) -> None:
    told = server.get("/api/failed", count=200)
    assert told["total"] == len(told["rows"]) == server.get("/api/about")["failed"]
    first = told["reasons"][0]
    assert first["meaning"]
    some = server.get("/api/failed", reason=first["reason"], start=1)
    assert some["total"] == first["count"] == len(some["rows"]) + 1
    assert server.get("/api/sample/" + some["rows"][0]["key"])["failure"]["meaning"]


def test_a_damaged_table_is_one_sentence(own: Dataset) -> None:
    own.table_path("duplicates").write_bytes(b"no Parquet")
    with served(own.directory) as server:
        answer = httpx.get(f"{server.address}/api/about")
        assert answer.status_code == 409
        assert "caplab check" in answer.json()["error"]


def test_a_dataset_beyond_writing_to_has_its_cache_elsewhere(
    own: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (own.directory / "view").write_text("root may write anywhere, but not below a file")
    opened = find(own.directory)
    assert opened.cache.parent == tmp_path
    assert make_order(opened, opened.tables, Order(sort="blur")) > 400
    opened.close()
    assert find(own.directory).cache == opened.cache


def test_an_order_that_gives_way_to_newer_ones_while_it_is_read_is_made_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, read = server.opened, rows_module.rows
    name = server.get("/api/order", sort="blur")["order"]

    def late(tables: Tables, source: str, show: Sequence[str]) -> list[dict]:
        monkeypatch.setattr(rows_module, "rows", read)
        for seed in range(rows_module.KEPT_ORDERS):
            make_order(opened, tables, Order(random=seed))
        return read(tables, source, show)

    monkeypatch.setattr(rows_module, "rows", late)
    assert len(server.get("/api/window", order=name, count=5)["rows"]) == 5


def test_a_directory_is_known_by_what_it_holds(own: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="neither a dataset nor a run"):
        find(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"kind": "training", "settings": {}}')
    opened = find(run)
    assert (opened.kind, opened.dataset) == ("run", None)
    with pytest.raises(DatasetError, match="No dataset is known"):
        opened.cursor()
    (run / "run.json").write_text(f'{{"kind": "ablation", "dataset_directory": "{own.directory}"}}')
    study = find(run)
    assert study.kind == "study"
    assert isinstance(study.dataset, Dataset)


def test_a_cursor_sees_every_table(server: Server) -> None:
    opened: Opened = server.opened
    for table in ("captions", "duplicates", "embeddings", "caption_scores", "fingerprints"):
        opened.cursor().execute(f"SELECT count(*) FROM {table}").fetchall()
    tables = opened.sample_tables()
    assert "image_embedding" in tables.columns
    tables.add_selection("in good", "good")
    assert "in good" not in opened.sample_tables().columns
    with pytest.raises(ConfigError, match="did you mean 'aesthetic'"):
        make_order(opened, opened.tables, Order(sort="aestetic"))
