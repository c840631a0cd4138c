"""`caplab bench duplicates --scale`: how the searches grow with the dataset, on generated data.

`KINDS` is the table of what is searched, each in a process of its own and over files on disk; a
kind is added as a row there:

hashes      eight 64-bit hashes a sample (the picture, seven views of it). 2% of the samples are
            copies: their plain hash is one of the views of another, with 0 to 8 bits flipped. 2%
            more share one of twenty hashes, as blank or nearly blank pictures do.
embeddings  512 numbers in float16: two thousand topics of very different size (frequency 1 / rank),
            and for each sample a direction of its own, whose variance falls as 1 / k over the
            dimensions, as spectra of learnt embeddings do; 2% are copies with a cosine of 0.92 to
            0.99 to another.
isotropic   the same with own directions that have no structure at all. No embedding is like that,
            and nothing is harder to cluster: a bound from above, up to 300,000 samples.

Generated in blocks from a seed and streamed to disk, so the generator never holds a dataset either.
Time is CPU seconds of the search alone (another program's work does not count), wall time and peak
memory are the whole process's. The growth exponent is the slope of log time over log samples.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.memory import MemoryLimit, parse_bytes
from curate.duplicates.candidates.clusters import train
from curate.duplicates.candidates.hash_pairs import near_hashes
from curate.duplicates.candidates.neighbours import similar_pairs
from curate.duplicates.candidates.vectors import FileVectors
from pipelines.bench.common.figures import Figures, work_folder
from pipelines.bench.common.processes import run_measured

VIEWS, BITS = 8, 8
WIDTH = 512
LEAST = 0.9
"""Cosine from which embeddings are candidates, the default of `embedding_similarity`."""
COPIES, BLANK = 0.02, 0.02
GROWTH_GOAL, RECALL_GOAL = 1.15, 0.99
_BLOCK, _TOPICS = 50_000, 2_000

Integers = NDArray[np.int64]
Result = dict[str, float]
"""cpu (s), pairs, recall (of planted pairs)."""


def scale_figures(
    out: Path | None, sizes: Sequence[int], memory_limit: str, kinds: Sequence[str]
) -> Figures:
    """Time, memory and recall of the searches at every size, and how they grow.

    Raises:
        ConfigError: an unknown kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"There is no kind {kind!r}; kinds are {', '.join(KINDS)}.")
    folder = work_folder(out)
    figures = Figures("duplicates/scale")
    for kind in kinds:
        seconds = []
        mine = [size for size in sizes if size <= KINDS[kind].up_to]
        for size in mine:
            place = folder / f"{kind}-{size}"
            KINDS[kind].write(place, size)
            command = [sys.executable, "-m", "pipelines.bench.duplicates.scale"]
            cost = run_measured([*command, kind, place, memory_limit], {"OMP_NUM_THREADS": "1"})
            result = json.loads(cost.output.splitlines()[-1])
            seconds.append(result["cpu"])
            name, limit = f"{kind}/{size}", parse_bytes(memory_limit) >> 20
            figures.add(f"{name}/cpu", result["cpu"], "s")
            figures.add(f"{name}/wall", cost.wall_seconds, "s")
            figures.add(f"{name}/peak_memory", cost.peak_mib, "MiB", at_most=limit)
            figures.add(f"{name}/pairs", result["pairs"], "pairs")
            recall = result["recall"]
            figures.add(f"{name}/recall", recall, "of planted pairs", at_least=RECALL_GOAL)
            shutil.rmtree(place)
        if len(mine) > 1:
            slope = np.polyfit(np.log(mine), np.log(seconds), 1)[0]
            figures.add(f"{kind}/growth", slope, "exponent", at_most=GROWTH_GOAL)
    return figures


# ---- generating ---------------------------------------------------------------------------------


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
        _other_views(views, random, np.arange(count))
        through = random.integers(0, VIEWS, len(copies))
        bits = random.integers(0, BITS + 1, len(copies))
        views[0][copies] = views[through, source] ^ _flips(random, bits)
        _other_views(views, random, copies)
        for view, hashes in enumerate(views):
            with open(place / f"view{view}.u64", "ab") as file:
                hashes.tofile(file)
        originals.append(_originals(count, copies, source + start))
    np.save(place / "original.npy", np.concatenate(originals))


def _other_views(views: NDArray[np.uint64], random: np.random.Generator, rows: Integers) -> None:
    """Mirror images have hashes of their own; a crop of a few per cent flips a few bits."""
    views[1, rows] = random.integers(0, 2**64, len(rows), dtype=np.uint64)
    for view in range(2, VIEWS):
        views[view, rows] = views[view % 2, rows] ^ _flips(
            random, random.integers(4, 13, len(rows))
        )


def _flips(random: np.random.Generator, bits: Integers) -> NDArray[np.uint64]:
    """(B,) masks with that many bits set, of at most 13."""
    order = random.random((len(bits), 64)).argpartition(np.arange(13), axis=1)[:, :13]
    chosen = np.uint64(1) << order.astype(np.uint64)
    chosen = np.where(np.arange(13) < bits[:, None], chosen, np.uint64(0))
    return chosen.sum(axis=1, dtype=np.uint64)


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
            copies = np.flatnonzero(random.random(count) < COPIES)
            source = random.choice(np.setdiff1d(np.arange(count), copies), len(copies))
            cosine = random.uniform(0.92, 0.99, (len(copies), 1)).astype(np.float32)
            noise = random.standard_normal((len(copies), WIDTH), dtype=np.float32)
            noise -= (noise * vectors[source]).sum(axis=1, keepdims=True) * vectors[source]
            noise /= np.linalg.norm(noise, axis=1, keepdims=True)
            vectors[copies] = cosine * vectors[source] + np.sqrt(1 - cosine**2) * noise
            vectors.astype(np.float16).tofile(file)
            originals.append(_originals(count, copies, source + start))
    np.save(place / "original.npy", np.concatenate(originals))


def _originals(count: int, copies: Integers, source: Integers) -> Integers:
    original = np.full(count, -1, np.int64)
    original[copies] = source
    return original


# ---- searching ----------------------------------------------------------------------------------


def search_hashes(place: Path, memory_limit: str) -> Result:
    """Join every view with the plain hashes; the pairs are counted and not kept."""
    memory = _blocks(memory_limit)
    views = [np.fromfile(place / f"view{view}.u64", np.uint64) for view in range(VIEWS)]
    _compile()
    started = time.process_time()
    pairs = (pair for view in views for pair in near_hashes(views[0], view, BITS, memory=memory))
    return _counted(place, pairs, started)


def search_embeddings(place: Path, memory_limit: str) -> Result:
    """Train the clusters, assign, and compare within them."""
    memory = _blocks(memory_limit)
    vectors = FileVectors(place / "vectors.f16", WIDTH)
    started = time.process_time()
    similar = similar_pairs(vectors, LEAST, train(vectors), memory=memory)
    return _counted(place, ((s.pairs[:, 0], s.pairs[:, 1]) for s in similar), started)


def _blocks(memory_limit: str) -> int:
    return MemoryLimit(parse_bytes(memory_limit)).blocks(0)


def _compile() -> None:
    """Have the compiled functions ready: their compilation is no part of the search."""
    some = np.random.default_rng(0).integers(0, 2**64, 6_000, dtype=np.uint64)
    for _ in near_hashes(some, some, BITS):
        pass


def _counted(place: Path, pairs: Iterable[tuple[Integers, Integers]], started: float) -> Result:
    """Exhaust `pairs`, and see which of the planted ones are there."""
    original = np.load(place / "original.npy")
    found, count = np.zeros(len(original), bool), 0
    for first, second in pairs:
        count += len(first)
        found[first[original[first] == second]] = True
        found[second[original[second] == first]] = True
    cpu = time.process_time() - started
    return {"cpu": cpu, "pairs": count, "recall": float(found[original >= 0].mean())}


@dataclass(frozen=True)
class Kind:
    """How to write that many samples into a folder, and how to search it within a memory limit."""

    write: Callable[[Path, int], None]
    search: Callable[[Path, str], Result]
    up_to: float = float("inf")
    """Largest size that says something; more only takes time."""


KINDS = {
    "hashes": Kind(write_hashes, search_hashes),
    "embeddings": Kind(write_embeddings, search_embeddings),
    "isotropic": Kind(partial(write_embeddings, falling=0.0), search_embeddings, 300_000),
}

if __name__ == "__main__":
    kind, place, memory_limit = sys.argv[1:]
    print(json.dumps(KINDS[kind].search(Path(place), memory_limit)))
