"""The engine img2dataset: our rows and reasons, and what its own shards hold, to the byte.

One server and one run of img2dataset itself stand beside ours.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError
from curate.base.reasons import Reason
from curate.base.settings import load_settings
from curate.download.img2dataset_engine import FOLDER, reason_of
from curate.download.settings import DownloadSettings
from curate.download.stage import download_stage
from curate.intake.read import plan_shards
from curate.store.accounting import accounting
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from tests.curate.download.hostile_server import hostile_server
from tests.curate.download.test_img2dataset_layout import RUN, members

# Options that our own engine lacks: border, boxes, EXIF, another hash.
OPTIONS = {
    "resize_mode": "border",
    "image_size": 40,
    "encode_format": "webp",
    "encode_quality": 80,
    "extract_exif": True,
    "compute_hash": "md5",
    "bbox_col": "boxes",
}
EXPECTED = {
    "good/0": None,
    "good/1": None,
    "moved": None,
    "missing": "http_404",
    "forbidden": "http_403",
    "error": "http_5xx",
    "busy": "http_429",
    "loop": "too_many_redirects",
    "to_file": "unsupported_scheme",
    "html": "not_an_image",
    "hangs_up": "connection_lost",
    "cut": "incomplete_body",
    "noai": "disallowed_by_header",
}
BOXES = [[[0.1, 0.1, 0.6, 0.7]], [], None]


def settings(**more) -> DownloadSettings:
    given = {"engine": "img2dataset", "timeout": 2.0, "retries": 0, "threads": 4, **more}
    return DownloadSettings(**{"allow_private_addresses": True, **given})


def run(dataset: Dataset, chosen: DownloadSettings) -> dict[str, int]:
    stage = pickle.loads(pickle.dumps(download_stage(chosen)))  # as it travels to a worker
    stage.open()
    return stage.run(dataset, "00000")


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """(our dataset, its counts, img2dataset's own folder), both of EXPECTED."""
    folder = tmp_path_factory.mktemp("engine")
    with hostile_server() as server:
        urls = [server.url(path) for path in EXPECTED]
        boxes = [BOXES[number % 3] for number in range(len(urls))]
        kind = pa.list_(pa.list_(pa.float64()))
        columns = {"url": urls, "text": [f"Bild {n} ü" for n in range(len(urls))]}
        table = pa.table({**columns, "score": np.arange(len(urls)), "boxes": pa.array(boxes, kind)})
        listed = folder / "list.parquet"
        pq.write_table(table, listed)
        theirs = {
            **OPTIONS,
            "url_list": str(listed),
            "input_format": "parquet",
            "caption_col": "text",
            "save_additional_columns": ["score"],
            "output_folder": str(folder / "theirs"),
            "output_format": "webdataset",
            "resize_only_if_bigger": True,
            "thread_count": 4,
            "timeout": 2,
        }
        (folder / "run.py").write_text(RUN)
        subprocess.run(
            [sys.executable, folder / "run.py", json.dumps(theirs)],
            env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"},
            check=True,
            capture_output=True,
        )
        dataset = Dataset(folder / "ours")
        plan_shards(listed, dataset)
        counts = run(dataset, settings(**OPTIONS))
    return dataset, counts, folder / "theirs"


def test_the_shard_holds_what_img2datasets_own_would_byte_for_byte(beside):
    dataset, _, theirs = beside
    mine = members(dataset.shard_path("00000"))
    published = sorted(members(theirs / "00000.tar"), key=lambda sample: sample["txt"])
    assert [sample["txt"] for sample in mine] == [sample["txt"] for sample in published]
    assert len(mine) == 3
    for own, other in zip(mine, published, strict=True):
        assert own.keys() == other.keys() == {"webp", "txt", "json"}
        assert own["webp"] == other["webp"]
        keys = [json.loads(sample["json"])["key"].encode() for sample in (own, other)]
        assert own["json"] == other["json"].replace(keys[1], keys[0])


def test_each_row_is_stored_or_failed_for_its_reason(beside):
    dataset, counts, _ = beside
    rows = dataset.read_table("samples", "00000").to_pylist()
    assert [row["reason"] for row in rows] == list(EXPECTED.values())
    assert counts["stored"] == 3 == sum(row["status"] == "stored" for row in rows)
    assert accounting(dataset)["balanced"]
    assert [key for key, _, _ in iter_shard(dataset, "00000")] == [row["key"] for row in rows[:3]]
    stored = rows[0]
    assert (stored["width"], stored["height"]) == (40, 40)
    assert stored["original_format"] == "jpeg"
    assert len(stored["sha256"]) == 64


def test_its_statistics_and_its_table_are_kept(beside):
    dataset, _, theirs = beside
    mine, published = (
        json.loads((folder / "00000_stats.json").read_text())
        for folder in (dataset.directory / FOLDER, theirs)
    )
    for name in ("count", "successes", "failed_to_download", "failed_to_resize", "status_dict"):
        assert mine[name] == published[name]
    assert mine["status_dict"]["HTTP Error 404: Not Found"] == 1
    table = pq.read_table(dataset.directory / FOLDER / "00000.parquet")
    assert table.num_rows == len(EXPECTED)
    assert "exif" in table.column_names


def test_no_request_leaves_for_a_private_address_or_a_file(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    with hostile_server() as server:
        urls = [server.url("good/0"), secret.as_uri(), "ftp://127.0.0.1/x", None, "picture.jpg"]
        pq.write_table(pa.table({"url": urls, "text": ["a"] * 5}), tmp_path / "list.parquet")
        dataset = Dataset(tmp_path / "dataset")
        plan_shards(tmp_path / "list.parquet", dataset)
        run(dataset, settings(allow_private_addresses=False))
    reasons = dataset.read_table("samples", "00000").column("reason").to_pylist()
    wanted = ["private_address", "unsupported_scheme", "unsupported_scheme", "no_url", "bad_url"]
    assert reasons == wanted


def test_what_a_killed_run_left_is_no_obstacle_and_a_second_run_has_the_same_rows(beside, tmp_path):
    dataset, _, _ = beside
    with hostile_server() as server:
        urls = [server.url("good/0"), server.url("missing")]
        pq.write_table(pa.table({"url": urls, "text": ["a", "b"]}), tmp_path / "list.parquet")
        dataset = Dataset(tmp_path / "dataset")
        plan_shards(tmp_path / "list.parquet", dataset)
        left = dataset.directory / FOLDER / "00000.tmp"
        left.mkdir(parents=True)
        (left / "00000.tar").write_bytes(b"half")
        stage = download_stage(settings())
        assert not stage.is_done(dataset, "00000")
        assert run(dataset, settings()) == {"stored": 1, "http_404": 1}
        tar = dataset.shard_path("00000").read_bytes()
        assert stage.is_done(dataset, "00000")
        assert not left.exists()
        run(dataset, settings())
    assert dataset.shard_path("00000").read_bytes() == tar


def test_a_row_that_it_loses_is_a_row_that_failed_and_ends_nothing(tmp_path, capfd):
    moment = datetime(2024, 5, 17)
    with hostile_server() as server:
        columns = {"url": [server.url("good/0"), server.url("good/1")], "text": ["a", "b"]}
        # As text a moment is JSON; inside an object img2dataset can write none.
        odd = pa.array([{"at": moment}, None], pa.struct([("at", pa.timestamp("us"))]))
        table = pa.table({**columns, "when": [moment, moment], "inside": odd})
        pq.write_table(table, tmp_path / "list.parquet")
        dataset = Dataset(tmp_path / "dataset")
        plan_shards(tmp_path / "list.parquet", dataset)
        assert run(dataset, settings()) == {"unexpected": 1, "stored": 1}
    assert "not JSON serializable" in capfd.readouterr().err
    (sample,) = members(dataset.shard_path("00000"))
    assert json.loads(sample["json"])["when"] == "2024-05-17 00:00:00"


def test_a_list_without_the_column_of_boxes_is_refused_before_anything_is_fetched(tmp_path):
    pq.write_table(pa.table({"url": ["http://127.0.0.1/"], "text": ["a"]}), tmp_path / "l.parquet")
    dataset = Dataset(tmp_path / "dataset")
    plan_shards(tmp_path / "l.parquet", dataset)
    with pytest.raises(ConfigError, match="no column 'faces' of boxes"):
        run(dataset, settings(bbox_col="faces"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"skip_reencode": True}, "the engine caplab has no skip_reencode"),
        ({"resize_mode": "border"}, "--engine img2dataset"),
        ({"compute_hash": "md5"}, "the engine caplab has no compute_hash"),
        ({"encode_quality": 0}, "is 1 to 100"),
        ({"engine": "img2dataset", "respect_robots_txt": True}, "has no respect_robots_txt"),
        ({"engine": "img2dataset", "host_budget": 5}, "the engine img2dataset has no host_budget"),
        ({"engine": "img2dataset", "encode_format": "png"}, "is 0 to 9"),
    ],
)
def test_what_an_engine_lacks_is_refused_in_a_sentence(given, said):
    with pytest.raises(ConfigError, match=said):
        load_settings(DownloadSettings, overrides=given)


def test_our_own_engine_is_the_default_and_its_datasets_keep_their_identity():
    assert DownloadSettings().engine == "caplab"
    own = {"engine", "skip_reencode", "bbox_col", "extract_exif", "compute_hash"}
    assert not own & DownloadSettings().identity().keys()
    assert own <= settings().identity().keys()


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (
            "failed_to_download",
            "<urlopen error [Errno 111] Connection refused>",
            "connection_refused",
        ),
        ("failed_to_download", "<urlopen error timed out>", "timeout"),
        ("failed_to_download", "dns: x.invalid: [Errno -2] Name or service not known", "dns"),
        ("failed_to_download", "HTTP Error 410: Gone", "http_410"),
        ("failed_to_download", "HTTP Error 451: Unavailable", "http_4xx"),
        ("failed_to_download", "<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] ...>", "tls"),
        ("failed_to_download", "hash mismatch", "hash_mismatch"),
        ("failed_to_download", "words that nobody foresaw", "unexpected"),
        ("failed_to_resize", "image area too large", "too_many_pixels"),
        ("failed_to_resize", "aspect ratio too large", "aspect"),
        ("failed_to_resize", "OpenCV(4.14.0) ... error: (-215:Assertion failed)", "broken_image"),
    ],
)
def test_its_messages_are_our_reasons(status, message, reason):
    failure = reason_of(status, message)
    assert failure.reason is Reason.named(reason)
    assert failure.detail in message
