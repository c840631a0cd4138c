"""A small dataset that has everything, looked at in one browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_browser import Browser, chromium
from view_page import COLUMN, SCRIPT, Page, Server, served

from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from pipelines.bench.common.generate_dataset import Shape, generate


@pytest.fixture(scope="session")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """600 generated rows in two shards, with pictures, scores, copies, captions and a selection.

    The first stored sample has the alt text SCRIPT, the second none; COLUMN is a score. For tests
    that write nothing.
    """
    dataset = generate(
        tmp_path_factory.mktemp("viewed") / "photographs",
        Shape(rows=600, picture_shards=2, embedding_width=8),
    )
    samples = dataset.read_table("samples", "00000")
    texts = samples.column("alt_text").to_pylist()
    stored = [i for i, status in enumerate(samples["status"].to_pylist()) if status == "stored"]
    texts[stored[0]], texts[stored[1]] = SCRIPT, None
    place = samples.column_names.index("alt_text")
    samples = samples.set_column(place, "alt_text", pa.array(texts, pa.string()))
    dataset.write_table("samples", samples, "00000")
    for shard in dataset.shards():
        scores = dataset.read_table("scores", shard)
        hostile = pa.array([i / 7 for i in range(scores.num_rows)], pa.float32())
        dataset.write_table("scores", scores.append_column(COLUMN, hostile), shard)
    select(dataset, SelectSettings(name="good", where="aesthetic >= 5.5 and nsfw < 0.5"))
    assert pq.read_schema(dataset.table_path("scores", "00000")).names[-1] == COLUMN
    return dataset


@pytest.fixture
def own(viewed: Dataset, tmp_path: Path) -> Dataset:
    """A copy for a test that writes."""
    skip = shutil.ignore_patterns("view")
    return Dataset(shutil.copytree(viewed.directory, tmp_path / "own", ignore=skip))


@pytest.fixture(scope="session")
def server(viewed: Dataset) -> Iterator[Server]:
    """The server of `viewed`."""
    with served(viewed.directory) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        pytest.skip("Chromium is not installed")
    with Browser(executable) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, server: Server) -> Page:
    """The page of `viewed`. For another directory: `Page(browser, server)` of `served`."""
    return Page(browser, server)
