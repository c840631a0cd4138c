"""What all tests share: where the test data of the project's own machines lies, if it does."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyarrow import fs

# The models of the tests are tiny: more threads only wait for one another, and on a busy machine
# they spin. Subprocesses and Ray's workers inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REAL_DATA = Path(
    os.environ.get("CAPLAB_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data"
)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real photographs, broken files and published heads; skips where they are not present."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real test data is not on this machine")
    return REAL_DATA


@pytest.fixture(scope="session")
def bucket() -> "Iterator[fs.SubTreeFileSystem]":
    """A bucket named data on a moto server; the environment points S3 at it."""
    from pyarrow import fs

    from pipelines.bench.common.children import tied

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Path(sys.executable).parent / "moto_server"
    if not server.exists():
        pytest.skip("moto_server is not installed; run `make setup`")
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in environment}
    process = subprocess.Popen(
        tied([server, "-H", "127.0.0.1", "-p", str(port)]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.environ.update(environment)
        for _ in range(200):
            try:
                urllib.request.urlopen(environment["AWS_ENDPOINT_URL"], timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        s3 = fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True
        )
        s3.create_dir("data")
        yield fs.SubTreeFileSystem("data", s3)
    finally:
        process.terminate()
        process.wait()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


# Files that need the curated web, which takes half a minute to make: one worker has them all.
CURATED = (
    "test_road.py",
    "test_on_ray.py",
    "test_captions.py",
    "test_captions_command.py",
    "test_mistakes.py",
    "test_interruption.py",
)
# The longest of the others. One of them that began last would keep a worker waiting.
LONG = (
    "test_train.py",
    "test_distributed.py",
    "test_growing_study.py",
    "test_exported_model.py",
    "test_fine_tuning.py",
    "test_train_bench.py",
    "test_img2dataset_engine.py",
    "test_retry_failed.py",
    "test_tutorial.py",
)
FIRST = {name: place for place, name in enumerate((*CURATED, *LONG))}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of FIRST come first, in that order."""
    items.sort(key=lambda item: FIRST.get(item.path.name, len(FIRST)))


# Without pytest-xdist there is no such hook.
@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, a file is one worker's, and those of CURATED are like one file."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class OneWeb(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "curated" if Path(file).name in CURATED else file

    return OneWeb(config, log)
