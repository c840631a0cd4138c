import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import ConfigError
from curate.base.memory import LEAST_BLOCKS, LIBRARIES, MemoryLimit, parse_bytes
from curate.duplicates.candidates.clusters import train
from curate.duplicates.candidates.hamming import join_blocks
from curate.duplicates.candidates.neighbours import similar_pairs
from curate.duplicates.candidates.vectors import FileVectors
from curate.duplicates.search import BYTES_A_SAMPLE, find_duplicates
from curate.duplicates.settings import DuplicateSettings
from curate.scoring.stage import ScoreSettings, ScoreStage
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip


def peak(work: Callable[[], None]) -> int:
    """Most bytes that NumPy and Python held at once during `work`, beyond what they held before."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 * 10**9), ("1.5 GB", 15 * 10**8), ("64MiB", 64 << 20), ("1000", 1000), ("2g", 2e9)],
)
def test_amounts_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-1GB", "2 XB", "GB"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no amount of memory"):
        parse_bytes(text)


def test_blocks_get_what_libraries_and_samples_leave() -> None:
    assert MemoryLimit(2 << 30).blocks(1 << 30) == (1 << 30) - LIBRARIES
    with pytest.raises(ConfigError, match="too little"):
        MemoryLimit(2 << 30).blocks((2 << 30) - LIBRARIES - LEAST_BLOCKS + 1)


def test_clusters_are_compared_in_as_much_memory_as_they_are_given(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((30_000, 256)) / 16
    rows.astype(np.float16).tofile(tmp_path / "vectors.f16")
    del rows
    vectors = FileVectors(tmp_path / "vectors.f16", 256)
    tree = train(vectors)
    peaks = {
        memory: peak(lambda: list(similar_pairs(vectors, 0.99, tree, memory=memory)))  # noqa: B023
        for memory in (4 << 20, 256 << 20)
    }
    assert peaks[4 << 20] < 0.75 * peaks[256 << 20]


def test_tables_of_hashes_are_made_in_as_much_memory_as_they_are_given() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 600_000, dtype=np.uint64)
    few = hashes[:1000]
    list(join_blocks(hashes, few, 4))  # compile
    peaks = {
        memory: peak(lambda: list(join_blocks(hashes, few, 4, memory=memory)))  # noqa: B023
        for memory in (1 << 21, None)
    }
    assert peaks[1 << 21] < 0.75 * peaks[None]


def test_a_limit_below_what_the_dataset_takes_is_refused_before_the_search(tmp_path: Path) -> None:
    config, weights = tiny_clip(tmp_path / "clip")
    stage = ScoreStage(ScoreSettings(clip_model=str(config), clip_pretrained=str(weights)))
    dataset = make_dataset(tmp_path / "d", [[(encoded(drawn(seed)), "a") for seed in range(3)]])
    stage.run(dataset, "00000")
    with pytest.raises(ConfigError, match="it takes 591 MB at least"):
        find_duplicates(dataset, DuplicateSettings(memory_limit="500MB"))
    assert not dataset.has_table("duplicate_pairs")
    enough = LIBRARIES + LEAST_BLOCKS + 3 * BYTES_A_SAMPLE
    assert find_duplicates(dataset, DuplicateSettings(memory_limit=str(enough)))["samples"] == 3
