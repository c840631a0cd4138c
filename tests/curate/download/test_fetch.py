"""The download stage on a server that misbehaves: every row accounted for, every run the same."""

import hashlib
import io
import json
import pickle
import resource
import tarfile
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.reasons import Reason
from curate.download.settings import DownloadSettings
from curate.download.shared_urls import sharing_urls
from curate.download.stage import DownloadStage, download_stage
from curate.intake.read import plan_shards
from curate.pictures.pdq import pdq_hash
from curate.store.accounting import accounting, accounting_line
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from tests.curate.download.hostile_server import hostile_server, picture

SETTINGS = DownloadSettings(
    image_size=48,
    timeout=1.0,
    total_timeout=1.5,
    max_bytes=100_000,
    min_side=16,
    max_aspect=8,
    retries=0,
    threads=16,
    allow_private_addresses=True,
)

# Path on the server -> the reason it must end in; None is a stored picture.
EXPECTED = {
    "good/0": None,
    "slow_good/1": None,
    "moved": None,
    "chunked": None,
    "misnamed": None,
    "noai_for_others": None,
    "missing": "http_404",
    "forbidden": "http_403",
    "error": "http_5xx",
    "busy": "http_429",
    "loop": "too_many_redirects",
    "to_file": "unsupported_scheme",
    "html": "not_an_image",
    "empty": "empty_body",
    "announces_much": "too_large",
    "endless": "too_large",
    "trickle": "timeout",
    "cut": "incomplete_body",
    "half_picture": "broken_image",
    "garbage": "bad_response",
    "hangs_up": "connection_lost",
    "noai": "disallowed_by_header",
    "tiny": "too_small",
    "banner": "aspect",
    "bomb": "too_many_pixels",
}


@pytest.fixture(scope="module")
def server():
    with hostile_server() as running:
        yield running


def make_dataset(
    folder: Path, urls: list[str | None], rows_per_shard: int = 10_000, **columns: list
) -> Dataset:
    texts = [f"picture number {number}" for number in range(len(urls))]
    table = pa.table({"url": pa.array(urls, pa.string()), "text": texts, **columns})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "list.parquet")
    dataset = Dataset(folder / "dataset")
    plan_shards(folder / "list.parquet", dataset, rows_per_shard=rows_per_shard)
    return dataset


def run(
    dataset: Dataset, settings: DownloadSettings = SETTINGS, shard: str = "00000"
) -> dict[str, int]:
    stage = pickle.loads(pickle.dumps(DownloadStage(settings)))  # as it travels to a worker
    stage.open()
    return stage.run(dataset, shard)


@pytest.fixture(scope="module")
def hostile(server, tmp_path_factory) -> tuple[Dataset, dict[str, int]]:
    """All of EXPECTED, and rows whose URL is none, downloaded once."""
    odd = [None, "  ", "picture.jpg", "ftp://127.0.0.1/x", "http://no-such-host.invalid/"]
    urls = [server.url(path) for path in EXPECTED] + odd
    dataset = make_dataset(tmp_path_factory.mktemp("hostile"), urls)
    return dataset, run(dataset)


def test_each_url_is_stored_or_failed_for_its_reason(hostile):
    dataset, _ = hostile
    samples = dataset.read_table("samples", "00000").to_pylist()
    odd = ["no_url", "no_url", "bad_url", "unsupported_scheme", "dns"]
    expected = [*EXPECTED.values(), *odd]
    assert [sample["reason"] for sample in samples] == expected
    assert [sample["status"] == "stored" for sample in samples] == [r is None for r in expected]


def test_rows_in_equal_stored_plus_failed(hostile):
    dataset, counts = hostile
    books = accounting(dataset)
    assert books["rows"] == sum(counts.values()) == len(EXPECTED) + 5
    assert books["stored"] == counts["stored"] == 6
    assert books["failed"] == sum(books["reasons"].values()) == sum(books["classes"].values())
    assert books["balanced"]
    line = accounting_line(books)
    assert line.startswith("30 rows in = 6 stored + 19 errors (")
    assert "no_url 2" in line
    assert " + 5 policy (" in line
    assert line.endswith("may pass, --retry-failed tries them again")


def test_samples_keep_the_order_and_the_fields_of_the_input(hostile):
    dataset, _ = hostile
    rows = pq.read_table(dataset.input_path("00000"))
    samples = dataset.read_table("samples", "00000")
    for name in ("key", "row", "url", "alt_text"):
        assert samples.column(name).to_pylist() == rows.column(name).to_pylist()


def test_a_policy_refusal_keeps_the_size_of_the_picture(hostile):
    dataset, _ = hostile
    by_reason = {s["reason"]: s for s in dataset.read_table("samples", "00000").to_pylist()}
    assert (by_reason["too_small"]["original_width"], by_reason["too_small"]["detail"]) == (
        8,
        "8 x 8 pixels",
    )
    assert by_reason["aspect"]["original_width"] == 900
    assert by_reason["http_5xx"]["detail"] == "HTTP 500 Internal Server Error"


def test_the_shard_is_a_webdataset_in_input_order(hostile):
    dataset, _ = hostile
    stored = [
        sample
        for sample in dataset.read_table("samples", "00000").to_pylist()
        if sample["status"] == "stored"
    ]
    with tarfile.open(dataset.shard_path("00000")) as tar:
        names = tar.getnames()
        first = json.load(tar.extractfile(names[2]))
    expected = [f"{s['key']}.{extension}" for s in stored for extension in ("jpg", "txt", "json")]
    assert names == expected
    assert first["key"] == stored[0]["key"]
    assert first["alt_text"] == "picture number 0"
    assert (first["width"], first["height"]) == (48, 32)
    assert first["sha256"] == stored[0]["sha256"]


def test_iter_shard_gives_key_picture_and_text(hostile):
    dataset, _ = hostile
    samples = {s["key"]: s for s in dataset.read_table("samples", "00000").to_pylist()}
    for key, content, text in iter_shard(dataset, "00000"):
        assert Image.open(io.BytesIO(content)).size == (48, 32)
        assert text == samples[key]["alt_text"]


def test_the_same_input_gives_the_same_bytes(server, tmp_path):
    # The slow one comes first, so that pictures are complete in another order than they stand.
    paths = ["slow_good/1", *(f"good/{number}" for number in range(20)), "missing"]
    urls = [server.url(path) for path in paths]
    a, b = (make_dataset(tmp_path / name, urls) for name in "ab")
    run(a)
    run(b, SETTINGS.model_copy(update={"threads": 3}))
    assert a.shard_path("00000").read_bytes() == b.shard_path("00000").read_bytes()
    assert a.read_table("samples", "00000").equals(b.read_table("samples", "00000"))


def test_a_shard_without_its_samples_table_is_not_done_and_is_done_again(server, tmp_path):
    dataset = make_dataset(tmp_path, [server.url("good/1"), server.url("good/2")])
    stage = DownloadStage(SETTINGS)
    assert not stage.is_done(dataset, "00000")
    run(dataset)
    assert stage.is_done(dataset, "00000")
    before = dataset.shard_path("00000").read_bytes()
    dataset.table_path("samples", "00000").unlink()
    dataset.shard_path("00000").write_bytes(b"half a shard")
    leftover = dataset.shard_path("00000").with_name(".00000.tar.123.tmp")
    leftover.write_bytes(b"of a killed process")
    assert not stage.is_done(dataset, "00000")
    assert accounting(dataset)["pending"] == 2
    assert run(dataset) == {"stored": 2}
    assert dataset.shard_path("00000").read_bytes() == before
    assert not leftover.exists()


def test_a_shard_of_failures_only_is_an_empty_tar(server, tmp_path):
    dataset = make_dataset(tmp_path, [None, server.url("missing")])
    assert run(dataset) == {"no_url": 1, "http_404": 1}
    assert list(iter_shard(dataset, "00000")) == []


def test_other_columns_of_the_list_stand_in_the_json(server, tmp_path):
    columns = {"similarity": [0.5, float("nan")], "width": [1, 2]}
    dataset = make_dataset(tmp_path, [server.url("good/1")] * 2, **columns)
    run(dataset)
    with tarfile.open(dataset.shard_path("00000")) as tar:
        members = [json.load(tar.extractfile(n)) for n in tar.getnames() if n.endswith("json")]
    assert [member["similarity"] for member in members] == [0.5, None]
    assert [member["width"] for member in members] == [48, 48]
    assert [member["input_width"] for member in members] == [1, 2]


def test_repeated_rows_keep_keys_of_their_own(server, tmp_path):
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"url": [server.url("good/1")] * 3, "text": ["same"] * 3}), path)
    dataset = Dataset(tmp_path / "dataset")
    plan_shards(path, dataset)
    assert run(dataset) == {"stored": 3}
    assert len({key for key, _, _ in iter_shard(dataset, "00000")}) == 3


@pytest.mark.parametrize("engine", ["caplab", "img2dataset"])
def test_what_is_on_the_hash_list_is_counted_and_never_written(server, tmp_path, engine):
    urls = [server.url(path) for path in ("good/1", "good/2", "good/3")]
    files = [urllib.request.urlopen(url).read() for url in urls]
    looks = pdq_hash(np.asarray(Image.open(io.BytesIO(files[2])).convert("RGB")))[0]
    path = tmp_path / "known.csv"
    path.write_text(f"sha256,pdq\n{hashlib.sha256(files[0]).hexdigest()},{looks.tobytes().hex()}\n")
    options = {"hash_list": str(path), "engine": engine, "allow_private_addresses": True}
    settings = DownloadSettings(**options)
    dataset = make_dataset(tmp_path, urls)
    stage = download_stage(settings)
    stage.open()
    assert stage.run(dataset, "00000") == {"listed_hash": 2, "stored": 1}
    rows = dataset.read_table("samples", "00000").to_pylist()
    told = {row["url"]: row["detail"] for row in rows if row["reason"] == "listed_hash"}
    assert told[urls[0]].endswith("sha256, on known.csv")
    assert "pdq within" in told[urls[2]]
    assert [key for key, *_ in iter_shard(dataset, "00000")] == [rows[1]["key"]]
    with pytest.raises(ConfigError, match="cannot be read"):
        download_stage(DownloadSettings(**{**options, "hash_list": "/no/list"}))


def test_one_url_in_many_rows_is_one_request_whose_end_all_share(server, tmp_path):
    good, gone = server.url("good/shared"), server.url("missing/shared")
    right = hashlib.sha256(picture()).hexdigest()
    urls = [good, gone, f"{good}#top", server.url("good/alone"), good, gone, f" {good}"]
    hashes = [None, None, right, None, "0" * 64, None, None]
    dataset = make_dataset(tmp_path, urls, sha256=hashes)
    server.requests.clear()
    assert run(dataset) == {"stored": 4, "http_404": 2, "hash_mismatch": 1}
    assert server.requests == {"/good/shared": 1, "/missing/shared": 1, "/good/alone": 1}
    stored = {key: raw for key, raw, _ in iter_shard(dataset, "00000")}
    samples = dataset.read_table("samples", "00000").to_pylist()
    alike = [samples[n] for n in (0, 2, 6)]
    assert len({sample["key"] for sample in alike}) == 3
    assert len({stored[sample["key"]] for sample in alike}) == 1
    assert len({sample["sha256"] for sample in alike}) == 1
    assert samples[1]["detail"] == samples[5]["detail"]


def test_what_another_shard_stored_of_a_url_is_copied_and_not_asked_for_again(server, tmp_path):
    good, gone, other = (server.url(path) for path in ("good/spread", "missing/spread", "good/2"))
    right, wrong = hashlib.sha256(picture()).hexdigest(), "0" * 64
    urls = [good, gone, other, good, gone, server.url("good/3"), f" {good}#top", good, good]
    hashes = [None, None, None, None, None, None, right.upper(), wrong, None]
    told = {"sha256": hashes, "md5": [None] * 8 + [hashlib.md5(picture()).hexdigest()]}
    # A list may have a column of the name that DuckDB gives to a file.
    dataset = make_dataset(tmp_path, urls, 3, **told, filename=["x"] * 9)
    shards = dataset.shards()
    server.requests.clear()
    with sharing_urls(dataset, shards):
        assert [run(dataset, shard=shard) for shard in shards] == [
            {"stored": 2, "http_404": 1},
            {"stored": 2, "http_404": 1},
            {"stored": 2, "hash_mismatch": 1},
        ]
    # One that failed is asked for again, and so are hashes that what is stored cannot answer.
    asked = {"/good/spread": 2, "/missing/spread": 2, "/good/2": 1, "/good/3": 1}
    assert server.requests == asked
    alone = make_dataset(tmp_path / "alone", urls, 3, **told, filename=["x"] * 9)
    for shard in shards:
        run(alone, shard=shard)
        assert alone.shard_path(shard).read_bytes() == dataset.shard_path(shard).read_bytes()
        assert alone.read_table("samples", shard) == dataset.read_table("samples", shard)
    # Of what is stored nobody can tell whether it is on a list; a lost tar is nothing to copy from.
    known = tmp_path / "known.csv"
    known.write_text(f"sha256:{'f' * 64}\n")
    for settings, lost in (
        (SETTINGS.model_copy(update={"hash_list": str(known)}), []),
        (SETTINGS, ["00000"]),
    ):
        server.requests.clear()
        dataset.table_path("samples", "00001").unlink()
        for shard in lost:
            dataset.shard_path(shard).unlink()
        with sharing_urls(dataset, shards):
            run(dataset, settings, "00001")
        assert server.requests["/good/spread"] == 1


def test_loopback_is_refused_unless_it_is_allowed(server, tmp_path):
    dataset = make_dataset(tmp_path, [server.url("good/1")])
    settings = SETTINGS.model_copy(update={"allow_private_addresses": False})
    assert run(dataset, settings) == {"private_address": 1}


def test_we_say_who_we_are_and_not_that_we_are_a_browser(server, tmp_path):
    server.user_agents.clear()
    settings = SETTINGS.model_copy(update={"contact": "https://lab.example/bot"})
    run(make_dataset(tmp_path, [server.url("good/1")]), settings)
    assert server.user_agents == {"CaptionLab (+https://lab.example/bot)"}


def test_nothing_is_printed(server, tmp_path, capfd):
    dataset = make_dataset(tmp_path, [server.url("good/1"), server.url("hangs_up")])
    capfd.readouterr()  # the bar of the intake
    run(dataset)
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_stops_the_shard_instead_of_losing_rows(server, tmp_path):
    dataset = make_dataset(tmp_path, [server.url(f"good/{number}") for number in range(40)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # no file grows any larger
    try:
        with pytest.raises(OSError, match="File too large"):
            run(dataset)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not DownloadStage(SETTINGS).is_done(dataset, "00000")
    assert run(dataset) == {"stored": 40}


def test_every_reason_says_what_it_means_and_what_to_do():
    for reason in Reason:
        assert reason.meaning
        assert reason.value == reason.name.lower()
    assert Reason.TIMEOUT.may_pass
    assert not Reason.HTTP_404.may_pass
    assert Reason.named("too_small").reason_class == "policy"


def test_every_nasty_file_is_accounted_for(real_data, tmp_path):
    folder = real_data / "nasty"
    names = [json.loads(line)["file"] for line in (folder / "manifest.jsonl").open()]
    with hostile_server(folder) as server:
        dataset = make_dataset(tmp_path, [server.url(f"file/{quote(name)}") for name in names])
        counts = run(dataset, SETTINGS.model_copy(update={"max_bytes": 20_000_000}))
    assert sum(counts.values()) == len(names) == 297
    assert accounting(dataset)["balanced"]
    assert set(counts) <= {
        "stored",
        *("broken_image", "not_an_image", "unsupported_image", "unsupported_format", "empty_body"),
        *("too_small", "aspect", "too_many_pixels"),
    }
    samples = dataset.read_table("samples", "00000").to_pylist()
    for name, sample in zip(names, samples, strict=True):
        content = (folder / name).read_bytes()
        if content:
            assert sample["sha256"] == hashlib.sha256(content).hexdigest()
            assert sample["original_bytes"] == len(content)


def test_real_photographs_all_arrive(real_data, tmp_path):
    folder = real_data / "openstax" / "images_512"
    files = sorted(folder.rglob("*.jpg"))[::40]
    with hostile_server(folder) as server:
        urls = [server.url(f"file/{file.relative_to(folder)}") for file in files]
        dataset = make_dataset(tmp_path, urls)
        assert run(dataset, SETTINGS.model_copy(update={"image_size": 256})) == {
            "stored": len(files)
        }
    sizes = dataset.read_table("samples", "00000").column("width").to_pylist()
    assert max(sizes) == 256
