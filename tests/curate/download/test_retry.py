"""--retry-failed: what can pass is fetched again, and a kill at any moment leaves a whole shard."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import DatasetError
from curate.download.retry import RetryStage, finish_retries, retryable
from curate.download.settings import DownloadSettings
from curate.download.stage import DownloadStage
from curate.intake.read import plan_shards
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from tests.curate.download.hostile_server import hostile_server

SETTINGS = DownloadSettings(image_size=48, retries=0, threads=8, allow_private_addresses=True)
PATHS = ("flaky/1", "good/2", "missing", "flaky/3", "good/4", "flaky/5", "good/6", "good/7")


@pytest.fixture
def server():
    with hostile_server() as running:
        yield running


def downloaded(folder: Path, urls: list[str], rows_per_shard: int = 6) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"url": urls, "text": [f"number {number}" for number in range(len(urls))]})
    pq.write_table(table, folder / "list.parquet")
    dataset = Dataset(folder / "dataset")
    plan_shards(folder / "list.parquet", dataset, rows_per_shard=rows_per_shard)
    for shard in dataset.shards():
        DownloadStage(SETTINGS).run(dataset, shard)
    return dataset


def content(dataset: Dataset) -> dict[str, tuple[bytes, list[dict]]]:
    """Every shard's tar and samples rows."""
    return {
        shard: (
            dataset.shard_path(shard).read_bytes(),
            dataset.read_table("samples", shard).to_pylist(),
        )
        for shard in dataset.shards()
    }


def test_a_retried_dataset_is_the_one_that_would_have_come_without_the_errors(server, tmp_path):
    urls = [server.url(path) for path in PATHS]
    dataset = downloaded(tmp_path / "retried", urls)
    assert retryable(dataset, "00000") == [0, 3, 5]
    untouched = dataset.shard_path("00001").stat()
    server.healed = True
    stage = RetryStage(SETTINGS)
    assert stage.run(dataset, "00000") == {"stored": 3}
    assert stage.is_done(dataset, "00000")
    assert stage.is_done(dataset, "00001")
    assert dataset.shard_path("00001").stat() == untouched
    assert content(dataset) == content(downloaded(tmp_path / "unbroken", urls))
    assert server.requests["/missing"] == 2  # one a dataset: a 404 is not tried again
    assert not (dataset.directory / "retry" / "00000").exists()


def test_a_retry_that_gains_nothing_leaves_every_file_as_it_was(server, tmp_path):
    dataset = downloaded(tmp_path, [server.url(path) for path in PATHS])
    before = content(dataset)
    times = [dataset.table_path("samples", shard).stat().st_mtime_ns for shard in before]
    assert RetryStage(SETTINGS).run(dataset, "00000") == {"http_5xx": 3}
    assert content(dataset) == before
    after = [dataset.table_path("samples", shard).stat().st_mtime_ns for shard in before]
    assert after == times


def test_a_samples_table_of_an_older_version_gains_its_new_column(server, tmp_path):
    dataset = downloaded(tmp_path, [server.url(path) for path in PATHS[:3]])
    path = dataset.table_path("samples", "00000")
    pq.write_table(pq.read_table(path).drop_columns(["jpeg_quality"]), path)
    server.healed = True
    assert RetryStage(SETTINGS).run(dataset, "00000") == {"stored": 1}
    told = dataset.read_table("samples", "00000").column("jpeg_quality").to_pylist()
    assert [quality is not None for quality in told] == [True, False, False]


def test_a_row_that_fails_in_another_way_has_its_new_reason(server, tmp_path):
    dataset = downloaded(tmp_path, [server.url("flaky/1"), server.url("good/1")])
    server.healed = True
    refused = SETTINGS.model_copy(update={"min_side": 4000})
    assert RetryStage(refused).run(dataset, "00000") == {"too_small": 1}
    samples = dataset.read_table("samples", "00000").to_pylist()
    assert [sample["reason"] for sample in samples] == ["too_small", None]


def test_what_rests_on_the_samples_alone_is_made_anew(server, tmp_path):
    dataset = downloaded(tmp_path, [server.url("flaky/1"), server.url("good/1")])
    alt = dataset.table_path("captions", "00000", "alt")
    other = dataset.table_path("captions", "00000", "a-captioner")
    for path in (alt, other):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"a table")
    server.healed = True
    RetryStage(SETTINGS).run(dataset, "00000")
    assert not alt.exists()
    assert other.exists()  # a captioner finds the keys it lacks by itself


# Forks a retry for every moment, so that Python and its packages start once. Each child works on a
# copy of its own and kills itself after so many steps; the last one finishes.
KILLER = """
import os, shutil, signal, sys
from pathlib import Path
import pandas, stringprep  # which pyarrow and the sockets would import in each child anew
import curate.download.retry
from curate.store.dataset import Dataset
from test_retry import SETTINGS

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

origin, copies = map(Path, sys.argv[1:])
for moment in range(200):
    copy = copies / f"{moment:03d}"
    shutil.copytree(origin, copy)
    child = os.fork()
    if child == 0:
        left = moment
        # Everything that changes the disk, one step before and one behind it.
        for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir")):
            setattr(owner, name, counted(getattr(owner, name)))
        curate.download.retry.shutil.rmtree = counted(curate.download.retry.shutil.rmtree)
        curate.download.retry.RetryStage(SETTINGS).run(Dataset(copy), "00000")
        os._exit(0)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        break
"""


@pytest.mark.faults
def test_a_kill_at_any_moment_leaves_a_dataset_that_continues(server, tmp_path):
    urls = [server.url(path) for path in PATHS[:6]]
    first = downloaded(tmp_path / "first", urls)
    alt = first.table_path("captions", "00000", "alt")
    alt.parent.mkdir(parents=True)
    alt.write_bytes(b"a table")
    before = content(first)
    server.healed = True
    after = content(downloaded(tmp_path / "unbroken", urls))
    (tmp_path / "copies").mkdir()
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [sys.executable, "-c", KILLER, first.directory, tmp_path / "copies"],
        env={**os.environ, "PYTHONPATH": here},
        check=True,
        timeout=120,
    )
    moments = sorted((tmp_path / "copies").iterdir())
    assert len(moments) > 20
    states = set()
    for copy in moments:
        dataset = Dataset(copy)
        states.add(tuple(sorted(path.name for path in copy.glob("retry/00000/*"))))
        finish_retries(dataset)
        assert not list(copy.glob("retry/*"))
        now = content(dataset)
        assert now in (before, after), copy.name
        # The alt captions rest on the samples: those of an old state must not outlive it.
        assert now == before or not dataset.table_path("captions", "00000", "alt").exists()
        stored = [s["key"] for s in now["00000"][1] if s["status"] == "stored"]
        assert [key for key, _, _ in iter_shard(dataset, "00000")] == stored
        if not RetryStage(SETTINGS).is_done(dataset, "00000"):
            RetryStage(SETTINGS).run(dataset, "00000")
        assert content(dataset) == after
    assert content(Dataset(moments[-1])) == after
    assert {(), ("done.json", "samples.parquet", "shard.tar"), ("shard.tar",)} <= states


def test_nobody_opens_a_dataset_in_the_middle_of_a_retry(server, tmp_path):
    dataset = downloaded(tmp_path, [server.url("good/1")])
    (dataset.directory / "dataset.json").write_text('{"contract_version": 1}')
    Dataset.open(dataset.directory)
    note = dataset.directory / "retry" / "00000" / "done.json"
    note.parent.mkdir(parents=True)
    note.write_text("{}")
    with pytest.raises(DatasetError, match="in the middle of a retry"):
        Dataset.open(dataset.directory)
    assert finish_retries(dataset) == 1
    Dataset.open(dataset.directory)
