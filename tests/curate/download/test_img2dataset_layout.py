"""img2dataset itself beside us: the same pictures, the same layout, its shards as our input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.download.settings import DownloadSettings
from curate.download.stage import DownloadStage
from curate.intake.inspection import inspect_input
from curate.intake.local_pictures import LocalPicturesStage
from curate.intake.read import plan_shards
from curate.store.dataset import Dataset
from tests.curate.download.hostile_server import hostile_server

SETTINGS = DownloadSettings(image_size=48, allow_private_addresses=True, retries=0, timeout=2.0)
RUN = """
import json, sys
from img2dataset import download
if __name__ == "__main__":
    download(**json.loads(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """(our dataset, img2dataset's folder), both of three good URLs and a dead one."""
    folder = tmp_path_factory.mktemp("beside")
    with hostile_server() as server:
        urls = [server.url(path) for path in ("good/0", "good/1", "good/2", "missing")]
        texts = ["one", "zwei", "trois", "none"]
        listed = folder / "urls.parquet"
        pq.write_table(pa.table({"url": urls, "caption": texts}), listed)
        (folder / "run.py").write_text(RUN)
        options = {
            "url_list": str(listed),
            "input_format": "parquet",
            "url_col": "url",
            "caption_col": "caption",
            "output_folder": str(folder / "theirs"),
            "output_format": "webdataset",
            "image_size": 48,
            "resize_mode": "keep_ratio_largest",
            "processes_count": 1,
            "thread_count": 2,
            "timeout": 2,
        }
        subprocess.run(
            [sys.executable, folder / "run.py", json.dumps(options)],
            env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"},
            check=True,
            capture_output=True,
        )
        ours = Dataset(folder / "ours")
        plan_shards(inspect_input(listed), ours, rows_per_shard=10)
        stage = DownloadStage(SETTINGS)
        stage.open()
        stage.run(ours, "00000")
    return ours, folder / "theirs"


def members(path: Path) -> list[dict[str, bytes]]:
    """The samples of a tar in order, each extension -> bytes."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            file = tar.extractfile(member)
            assert file is not None
            samples.setdefault(key, {})[extension] = file.read()
    return list(samples.values())


def test_our_shards_have_img2datasets_layout(beside):
    ours, theirs = beside
    mine = members(ours.shard_path("00000"))
    published = members(theirs / "00000.tar")
    assert [set(sample) for sample in mine] == [{"jpg", "txt", "json"}] * 3
    assert {frozenset(sample) for sample in mine} == {frozenset(sample) for sample in published}
    # Its rows come in the order in which they finish, so they are matched by text.
    texts = sorted(sample["txt"] for sample in mine)
    assert texts == sorted(sample["txt"] for sample in published)
    shared = {"url", "key", "width", "height", "original_width", "original_height", "sha256"}
    for sample in [*mine, *published]:
        assert shared <= json.loads(sample["json"]).keys()


def test_its_own_output_is_an_input_of_ours(beside, tmp_path):
    _, theirs = beside
    dataset = Dataset(tmp_path / "again")
    plan_shards(inspect_input(theirs), dataset, rows_per_shard=10)
    stage = LocalPicturesStage(SETTINGS)
    stage.open()
    stage.run(dataset, "00000")
    rows = dataset.read_table("samples", "00000").to_pylist()
    assert sorted(row["alt_text"] for row in rows if row["status"] == "stored") == [
        "one",
        "trois",
        "zwei",
    ]
    assert [row["reason"] for row in rows if row["status"] == "failed"] == ["not_downloaded"]
