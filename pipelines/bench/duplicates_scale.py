"""`caplab bench duplicates --scale`: how the searches grow with the dataset, on generated data.

Searches, each in a process of its own and over files on disk:

hashes      eight 64-bit hashes a sample (the picture, seven views of it). 2% of the samples are
            copies: their plain hash is one of the views of another, with 0 to 8 bits flipped. 2%
            more share one of twenty hashes, as blank or nearly blank pictures do.
embeddings  512 numbers in float16: two thousand topics of very different size (frequency 1 / rank),
            and for each sample a direction of its own, whose variance falls as 1 / k over the
            dimensions, as spectra of learnt embeddings do; 2% are copies with a cosine of 0.92 to
            0.99 to another.
isotropic   the same with own directions that have no structure at all. No embedding is like that,
            and nothing is harder to cluster: a bound from above, up to 300,000 samples.

pipeline    a dataset directory through `find_duplicates` from end to end, verification of every
            candidate on its thumbnails included; at 100,000.

Generated in blocks from a seed and streamed to disk, so the generator never holds a dataset either.
Time is CPU seconds of the search alone (another program's work does not count), wall time and peak
memory are the whole process's. The growth exponent is the slope of log time over log samples.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.memory import MemoryLimit, parse_bytes
from pipelines.bench.figures import Figure
from pipelines.bench.processes import run_measured

SIZES = (100_000, 300_000, 1_000_000)
VIEWS = 8
WIDTH = 512
LEAST = 0.9
"""Cosine from which embeddings are candidates, the default of `embedding_similarity`."""
BITS = 8
COPIES, BLANK = 0.02, 0.02
GROWTH_GOAL = 1.15
RECALL_GOAL = 0.99
_BLOCK = 50_000
_TOPICS = 2_000


def scale_figures(
    out: Path | None = None,
    sizes: tuple[int, ...] = SIZES,
    memory_limit: str = "2GB",
    kinds: tuple[str, ...] | None = None,
) -> list[Figure]:
    """Time, memory and recall of the searches at every size, and how they grow.

    Raises:
        ConfigError: an unknown kind.
    """
    for kind in kinds or ():
        if kind not in GENERATORS:
            raise ConfigError(f"There is no kind {kind!r}; kinds are {', '.join(GENERATORS)}.")
    folder = out or Path(tempfile.mkdtemp(prefix="caplab-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    for kind in kinds or GENERATORS:
        write, seconds = GENERATORS[kind], []
        mine = tuple(size for size in sizes if size <= UP_TO.get(kind, size))
        for size in mine:
            place = folder / f"{kind}-{size}"
            write(place, size)
            command = [sys.executable, "-m", "pipelines.bench.duplicates_scale"]
            cost = run_measured([*command, kind, place, memory_limit], {"OMP_NUM_THREADS": "1"})
            result = json.loads(cost.output.splitlines()[-1])
            seconds.append(result["cpu"])
            name = f"duplicates/scale/{kind}/{size}"
            peak = cost.peak_memory_bytes >> 20
            limit = parse_bytes(memory_limit) >> 20
            figures += [
                Figure(f"{name}/cpu", round(result["cpu"], 2), "s"),
                Figure(f"{name}/wall", round(cost.wall_seconds, 1), "s"),
                Figure(f"{name}/peak_memory", peak, "MiB", goal=limit),
                Figure(f"{name}/pairs", result["pairs"], "pairs"),
                Figure(
                    f"{name}/recall", round(result["recall"], 5), "of planted pairs",
                    goal=RECALL_GOAL, better="higher",
                ),
            ]  # fmt: skip
            shutil.rmtree(place)
        if len(mine) > 1:
            figures.append(
                Figure(
                    f"duplicates/scale/{kind}/growth", round(growth(mine, seconds), 3),
                    "exponent", goal=GROWTH_GOAL,
                )
            )  # fmt: skip
    return figures


def growth(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """The exponent e of the best fit seconds = c * size^e."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def write_hashes(place: Path, size: int, seed: int = 0) -> None:
    """view0.u64 to view7.u64, (size,) each, and original.npy: whose copy a row is, or -1."""
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    blank = random.integers(0, 2**64, 20, dtype=np.uint64)
    originals = []
    for view in range(VIEWS):
        (place / f"view{view}.u64").unlink(missing_ok=True)
    for start in range(0, size, _BLOCK):
        count = min(_BLOCK, size - start)
        views = np.empty((VIEWS, count), np.uint64)
        views[0] = random.integers(0, 2**64, count, dtype=np.uint64)
        kind = random.random(count)
        is_blank = kind < BLANK
        views[0][is_blank] = random.choice(blank, int(is_blank.sum()))
        copies = np.flatnonzero(kind > 1 - COPIES)
        plain = np.flatnonzero((kind >= BLANK) & (kind <= 1 - COPIES))
        source = random.choice(plain, len(copies))
        _other_views(views, random)
        through = random.integers(0, VIEWS, len(copies))
        bits = random.integers(0, BITS + 1, len(copies))
        views[0][copies] = views[through, source] ^ _flips(random, bits)
        _other_views(views, random, copies)
        for view, hashes in enumerate(views):
            with open(place / f"view{view}.u64", "ab") as file:
                hashes.tofile(file)
        original = np.full(count, -1, np.int64)
        original[copies] = source + start
        originals.append(original)
    np.save(place / "original.npy", np.concatenate(originals))


def _other_views(
    views: NDArray[np.uint64], random: np.random.Generator, rows: NDArray[np.int64] | None = None
) -> None:
    """Mirror images have hashes of their own; a crop of a few per cent flips a few bits."""
    some = np.arange(views.shape[1]) if rows is None else rows
    views[1, some] = random.integers(0, 2**64, len(some), dtype=np.uint64)
    for view in range(2, VIEWS):
        base, bits = views[view % 2, some], random.integers(4, 13, len(some))
        views[view, some] = base ^ _flips(random, bits)


def _flips(random: np.random.Generator, bits: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(B,) masks with that many bits set."""
    order = random.random((len(bits), 64)).argpartition(np.arange(13), axis=1)[:, :13]
    chosen = np.uint64(1) << order.astype(np.uint64)
    return np.where(np.arange(13) < bits[:, None], chosen, np.uint64(0)).sum(
        axis=1, dtype=np.uint64
    )


def write_isotropic(place: Path, size: int) -> None:
    """As write_embeddings, with a flat spectrum."""
    write_embeddings(place, size, falling=0.0)


def write_embeddings(place: Path, size: int, falling: float = 1.0, seed: int = 0) -> None:
    """vectors.f16, (size, 512) unit vectors, and original.npy as in write_hashes.

    Args:
        falling: the variance of the k-th dimension of a sample's own direction is k^-falling.
    """
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    topics = random.standard_normal((_TOPICS, WIDTH), dtype=np.float32) / WIDTH**0.5
    weight = 1 / np.arange(10, _TOPICS + 10)
    spread = np.arange(1, WIDTH + 1, dtype=np.float32) ** (-falling / 2)
    spread /= np.linalg.norm(spread)
    originals = []
    with open(place / "vectors.f16", "wb") as file:
        for start in range(0, size, _BLOCK):
            count = min(_BLOCK, size - start)
            own = random.standard_normal((count, WIDTH), dtype=np.float32) * spread
            vectors = own + topics[random.choice(_TOPICS, count, p=weight / weight.sum())]
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            original = np.full(count, -1, np.int64)
            copies = np.flatnonzero(random.random(count) < COPIES)
            source = random.choice(np.setdiff1d(np.arange(count), copies), len(copies))
            cosine = random.uniform(0.92, 0.99, (len(copies), 1)).astype(np.float32)
            noise = random.standard_normal((len(copies), WIDTH), dtype=np.float32)
            noise -= (noise * vectors[source]).sum(axis=1, keepdims=True) * vectors[source]
            noise /= np.linalg.norm(noise, axis=1, keepdims=True)
            vectors[copies] = cosine * vectors[source] + np.sqrt(1 - cosine**2) * noise
            original[copies] = source + start
            vectors.astype(np.float16).tofile(file)
            originals.append(original)
    np.save(place / "original.npy", np.concatenate(originals))


def write_pipeline(place: Path, size: int) -> None:
    """A dataset directory; see pipelines.bench.duplicates_dataset."""
    from pipelines.bench.duplicates_dataset import write_dataset

    write_dataset(place, size)


GENERATORS: dict[str, Callable[[Path, int], None]] = {
    "hashes": write_hashes,
    "embeddings": write_embeddings,
    "isotropic": write_isotropic,
    "pipeline": write_pipeline,
}
UP_TO = {"isotropic": 300_000, "pipeline": 100_000}
"""Largest size of the kinds that say enough at less than a million."""


def search_hashes(place: Path, memory: int) -> dict[str, float]:
    """Join every view with the plain hashes; the pairs are counted and not kept."""
    from curate.duplicates.hash_pairs import near_hashes

    views = [np.fromfile(place / f"view{view}.u64", np.uint64) for view in range(VIEWS)]
    _compile()
    original = np.load(place / "original.npy")
    found = np.zeros(len(original), bool)
    pairs = 0
    started = time.process_time()
    for view in views:
        for first, second in near_hashes(views[0], view, BITS, memory=memory):
            pairs += len(first)
            _note(found, original, first, second)
    cpu = time.process_time() - started
    return {"cpu": cpu, "pairs": pairs, "recall": float(found[original >= 0].mean())}


def search_embeddings(place: Path, memory: int) -> dict[str, float]:
    """Train the clusters, assign, and compare within them."""
    from curate.duplicates.clusters import train
    from curate.duplicates.neighbours import similar_pairs
    from curate.duplicates.vectors import FileVectors

    vectors = FileVectors(place / "vectors.f16", WIDTH)
    original = np.load(place / "original.npy")
    found = np.zeros(len(original), bool)
    pairs = 0
    started = time.process_time()
    tree = train(vectors)
    trained = time.process_time()
    for similar in similar_pairs(vectors, LEAST, tree, memory=memory):
        pairs += len(similar.pairs)
        _note(found, original, similar.pairs[:, 0], similar.pairs[:, 1])
    cpu = time.process_time() - started
    return {
        "cpu": cpu,
        "training": trained - started,
        "pairs": pairs,
        "recall": float(found[original >= 0].mean()),
    }


def search_pipeline(place: Path, memory_limit: str) -> dict[str, float]:
    """`find_duplicates` as `caplab duplicates` runs it: reads tables, searches, writes tables."""
    from curate.duplicates.search import DuplicateSettings, find_duplicates
    from curate.store.dataset import Dataset

    _compile()
    dataset = Dataset.open(place)
    started = time.process_time()
    counts = find_duplicates(dataset, DuplicateSettings(memory_limit=memory_limit))
    cpu = time.process_time() - started
    found, planted = (
        dataset.connect()
        .execute(
            "SELECT count(p.key_a), count(*) FROM samples s LEFT JOIN duplicate_pairs p ON "
            "p.method = 'near' AND p.key_a = least(s.key, alt_text) "
            "AND p.key_b = greatest(s.key, alt_text) WHERE alt_text IS NOT NULL"
        )
        .fetchall()[0]
    )
    return {"cpu": cpu, "pairs": counts["near_pairs"], "recall": found / planted}


def _compile() -> None:
    """Have the compiled functions ready: their compilation is no part of the search."""
    from curate.duplicates.hamming import join_blocks

    some = np.random.default_rng(0).integers(0, 2**64, 6_000, dtype=np.uint64)
    for _ in join_blocks(some, some, BITS):
        pass


def _note(
    found: NDArray[np.bool_],
    original: NDArray[np.int64],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> None:
    found[first[original[first] == second]] = True
    found[second[original[second] == first]] = True


def main() -> None:
    """The measured process: KIND FOLDER MEMORY; prints one JSON object."""
    kind, place, memory = sys.argv[1:]
    if kind == "pipeline":
        print(json.dumps(search_pipeline(Path(place), memory)))
        return
    search = search_hashes if kind == "hashes" else search_embeddings
    print(json.dumps(search(Path(place), MemoryLimit(parse_bytes(memory)).blocks(0))))


if __name__ == "__main__":
    main()
