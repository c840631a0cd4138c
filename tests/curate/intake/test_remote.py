"""Inputs on S3, against a real server of its protocol in a process of its own."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from curate.base.errors import ConfigError
from curate.intake.inspection import inspect_input
from curate.intake.read import plan_shards
from curate.store.dataset import Dataset
from tests.curate.intake.test_local_pictures import (
    img2dataset_output,
    inputs,
    jpeg,
    members,
    samples,
    take_in,
    write_tar,
)


def put(bucket: fs.SubTreeFileSystem, folder: Path, name: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            inside = f"{name}/{path.relative_to(folder)}"
            bucket.create_dir(str(Path(inside).parent), recursive=True)
            with bucket.open_output_stream(inside) as out:
                out.write(path.read_bytes())


def same(local: Dataset, remote: Dataset) -> None:
    """Both hold the same rows, samples and pictures."""
    assert local.shards() == remote.shards()
    assert inputs(local) == inputs(remote)
    assert samples(local) == samples(remote)
    for shard in local.shards():
        assert local.shard_path(shard).read_bytes() == remote.shard_path(shard).read_bytes()


def test_lists_of_urls_are_read_from_s3_by_name_folder_and_glob(bucket, tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    for n in range(2):
        rows = {"URL": [f"http://a/{n}/{m}" for m in range(3)], "TEXT": ["x", None, "z"]}
        pq.write_table(pa.table(rows), folder / f"part-{n}.parquet")
    put(bucket, folder, "lists")
    found = []
    for number, given in enumerate(
        ("s3://data/lists", "s3://data/lists/part-*.parquet", "s3://data/lists/part-0.parquet")
    ):
        dataset = Dataset(tmp_path / f"out{number}")
        plan_shards(given, dataset, rows_per_shard=4)
        plan_shards(given, dataset, rows_per_shard=4)  # a second call finds it done
        found.append([row["url"] for row in inputs(dataset)])
    assert found[0] == found[1] == [f"http://a/{n}/{m}" for n in range(2) for m in range(3)]
    assert found[2] == found[0][:3]


def test_tars_folders_and_parquet_pictures_on_s3_give_what_local_ones_give(bucket, tmp_path):
    img2dataset_output(tmp_path / "tars")
    write_tar(tmp_path / "tars" / "00001.tar", members(3, 20))
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "a.jpg").write_bytes(jpeg(1))
    (tmp_path / "folder" / "a.txt").write_text("beside it")
    (tmp_path / "folder" / "deep" / "b.jpg").write_bytes(jpeg(2))
    (tmp_path / "table").mkdir()
    table = pa.table({"image": [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in range(3)]})
    pq.write_table(table, tmp_path / "table" / "a.parquet", row_group_size=2)
    for name in ("tars", "folder", "table"):
        put(bucket, tmp_path / name, name)
        local = take_in(tmp_path / name, tmp_path / f"{name}-local", rows_per_shard=2)
        remote = take_in(f"s3://data/{name}", tmp_path / f"{name}-remote", rows_per_shard=2)
        same(local, remote)


def test_what_is_not_on_s3_is_refused_in_one_sentence(bucket):
    for given in ("s3://data/none.parquet", "s3://data/none-*.csv", "s3://no-such-bucket/a.csv"):
        with pytest.raises(ConfigError, match=r"does not exist|cannot be reached") as caught:
            inspect_input(given)
        assert "\n" not in str(caught.value)


def test_a_scheme_without_its_package_says_what_to_install():
    with pytest.raises(ConfigError, match=r"need a package .* install `uv pip install adlfs`"):
        inspect_input("abfs://container/list.parquet")
    with pytest.raises(ConfigError, match="is no kind of storage"):
        inspect_input("gopher://host/list.parquet")


def test_a_list_on_a_web_server_is_read_through_fsspec(tmp_path):
    import functools
    import http.server
    import threading

    table = pa.table({"url": ["http://a/1", "http://a/2"], "text": ["one", "two"]})
    pq.write_table(table, tmp_path / "list.parquet")
    (tmp_path / "list.csv").write_text("url,text\nhttp://a/1,one\nhttp://a/2,two\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("list.parquet", "list.csv"):
            dataset = Dataset(tmp_path / f"out-{name}")
            plan_shards(f"http://127.0.0.1:{server.server_port}/{name}", dataset)
            assert [row["alt_text"] for row in inputs(dataset)] == ["one", "two"]
        with pytest.raises(ConfigError, match="does not exist"):
            inspect_input(f"http://127.0.0.1:{server.server_port}/none.csv")
        server.shutdown()
