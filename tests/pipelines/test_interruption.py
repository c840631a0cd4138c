"""kill -9 at any moment: the same command continues, and ends with an unbroken run's tables."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curate.store.dataset import Dataset
from pipelines.bench.common.children import tied
from pipelines.demo.demo import RULES, SELECTION
from pipelines.world import weights
from pipelines.world.serve import serve

# A file that appears in the middle of a stage; the driver is killed as soon as it is there.
MOMENTS = (
    "tables/samples/00000.parquet",
    "tables/scores/00000.parquet",
    "tables/duplicates/all.parquet",
)


def curate_command(urls: Path, out: Path) -> list[str]:
    options = {
        "--image-size": "64",
        "--min-side": "64",
        "--rows-per-shard": "80",
        "--clip-model": f"local-dir:{weights.clip_dir()}",
        "--clip-pretrained": "none",
        "--aesthetic-head": str(weights.aesthetic_head_path()),
        "--nsfw-head": str(weights.nsfw_head_path()),
        "--name": SELECTION,
        "--where": " and ".join(RULES),
    }
    flat = [part for pair in options.items() for part in pair]
    command = [sys.executable, "-m", "pipelines.cli", "curate", str(urls), "--out", str(out)]
    return [*command, *flat, "--allow-private-addresses"]


def kill_when(command: list[str], path: Path) -> None:
    """Start the command and SIGKILL its driver once `path` exists."""
    driver = subprocess.Popen(tied(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not path.exists():
        assert driver.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()


def tables(directory: Path) -> dict[str, object]:
    """Every table of a dataset, by path."""
    found = sorted(directory.glob("tables/**/*.parquet")) + sorted(
        directory.glob("selections/*.parquet")
    )
    return {str(path.relative_to(directory)): pq.read_table(path) for path in found}


@pytest.mark.faults
def test_three_kills_of_the_driver_change_no_table(small_web, curated, tmp_path):
    command = curate_command(small_web.urls, tmp_path / "data")
    with serve(small_web.directory, small_web.port):
        for moment in MOMENTS:
            kill_when(command, tmp_path / "data" / moment)
        subprocess.run(tied(command), check=True, capture_output=True)
    unbroken = {
        name: table
        for name, table in tables(curated.directory).items()
        if "captions" not in name or "captions/alt" in name
    }
    broken = tables(tmp_path / "data")
    assert sorted(broken) == sorted(unbroken)
    for name, table in broken.items():
        assert table.equals(unbroken[name]), name
    for shard in curated.shards():
        killed = Dataset(tmp_path / "data").shard_path(shard).read_bytes()
        assert killed == curated.shard_path(shard).read_bytes()
