"""Clusters of vectors of one constant size, however many vectors there are: training, assigning.

Plain k-means with N / s centroids costs N^2 / s, in training and in assigning. Here the centroids
form a tree of two levels: about sqrt(N / s) coarse ones, and below each as many fine ones as its
share of the vectors asks for. Training looks at a bounded number of vectors a centroid, assigning
at the fine centroids below the nearest coarse ones alone, so both cost N^1.5 times a small factor.

Centroids have unit length and nearest means by direction: spherical k-means, as in SemDeDup (Abbas
and others, 2023). By distance, the short mean of a diffuse cluster is next best for everybody, and
its cluster grows with the dataset.

Two vectors can be compared only where they share a cluster, and a pair may lie across a border.
So each vector is assigned to its `NEAREST` centroids: one more than SemDeDup's pairs need at
least, for what lies near two borders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.base.files import atomic_path
from curate.duplicates.candidates.vectors import Floats, Vectors

SIZE = 300
"""Vectors to a fine centroid; a cluster holds `NEAREST` times as many."""
NEAREST = 3
_POINTS = 80
"""Training vectors to a centroid."""
_ROUNDS = 12
_COARSE_PROBES = 8
_BLOCK = 8192


@dataclass(frozen=True)
class Tree:
    """Coarse centroids (C, D), fine centroids (K, D), and where those below each coarse one start.

    `start` is (C + 1,): the fine centroids of coarse centroid c are start[c] to start[c + 1].
    """

    coarse: Floats
    fine: Floats
    start: NDArray[np.int64]
    trained_on: int
    """Number of vectors that there were at the training."""

    def __len__(self) -> int:
        return len(self.fine)

    def save(self, path: Path) -> None:
        """Write it to `path`, an .npz file, atomically."""
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(
                stream,
                coarse=self.coarse,
                fine=self.fine,
                start=self.start,
                trained_on=np.array(self.trained_on),
            )

    @classmethod
    def load(cls, path: Path) -> Tree:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(stored["coarse"], stored["fine"], stored["start"], int(stored["trained_on"]))

    def nearest(self, vectors: Floats) -> NDArray[np.int32]:
        """(B, D) -> (B, 3): the nearest fine centroids in order; -1 where there are fewer.

        The search goes below the eight nearest coarse centroids, so now and then a centroid that is
        a little nearer is missed.
        """
        best = np.full((len(vectors), NEAREST), -np.inf, np.float32)
        which = np.full((len(vectors), NEAREST), -1, np.int32)
        probes = _top(_closeness(vectors, self.coarse), _COARSE_PROBES)
        # Who asks which cell, by one sort in place of a look at all probes for each cell.
        askers = np.argsort(probes, axis=None, kind="stable") // probes.shape[1]
        ends = np.cumsum(np.bincount(probes.ravel(), minlength=len(self.coarse)))
        for cell in range(len(self.coarse)):
            rows = askers[ends[cell - 1] if cell else 0 : ends[cell]]
            start, stop = int(self.start[cell]), int(self.start[cell + 1])
            if not len(rows) or start == stop:
                continue
            close = _closeness(vectors[rows], self.fine[start:stop])
            top = _top(close, NEAREST)
            values = np.concatenate([best[rows], np.take_along_axis(close, top, axis=1)], axis=1)
            names = np.concatenate([which[rows], (top + start).astype(np.int32)], axis=1)
            order = np.argsort(-values, axis=1, kind="stable")[:, :NEAREST]
            best[rows] = np.take_along_axis(values, order, axis=1)
            which[rows] = np.take_along_axis(names, order, axis=1)
        return which

    def assign(self, vectors: Vectors) -> NDArray[np.int32]:
        """(N, 3) the nearest fine centroids of every vector, in blocks; see `nearest`."""
        out = np.empty((len(vectors), NEAREST), np.int32)
        for start in range(0, len(vectors), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(vectors)))
            out[rows] = self.nearest(vectors.take(rows))
        return out


def train(vectors: Vectors, seed: int = 0, size: int = SIZE) -> Tree:
    """A tree for these vectors. Deterministic. Memory: a training sample of 64 MB or so at a time.

    Args:
        vectors: at least one.
        size: vectors to a fine centroid.
    """
    total = len(vectors)
    fine_total = max(1, math.ceil(total / size))
    coarse_total = max(1, round(math.sqrt(fine_total)))
    random = np.random.default_rng(seed)
    coarse = _clustered(
        vectors.take(_sample(random, total, coarse_total * 4 * _POINTS)), coarse_total, seed
    )
    if coarse_total == 1:
        points = vectors.take(_sample(random, total, fine_total * _POINTS))
        fine = _clustered(points, fine_total, seed)
        return Tree(coarse, fine, np.array([0, len(fine)]), total)
    chosen = _sample(random, total, fine_total * _POINTS)
    cell = np.empty(len(chosen), np.int64)
    for start in range(0, len(chosen), _BLOCK):
        part = chosen[start : start + _BLOCK]
        cell[start : start + _BLOCK] = _closeness(vectors.take(part), coarse).argmax(axis=1)
    parts, starts = [], [0]
    for number in range(len(coarse)):
        mine = chosen[cell == number]
        wanted = round(fine_total * len(mine) / len(chosen))
        parts.append(
            _clustered(vectors.take(mine), wanted, seed) if wanted > 1 else coarse[[number]]
        )
        starts.append(starts[-1] + len(parts[-1]))
    return Tree(coarse, np.concatenate(parts), np.array(starts), total)


def _clustered(points: Floats, count: int, seed: int) -> Floats:
    return kmeans(_unit(points), count, _ROUNDS, 10 * _POINTS, seed)


def kmeans(points: Floats, count: int, rounds: int, most: int, seed: int = 0) -> Floats:
    """(count, D) unit centroids of spherical k-means, or fewer where there are not as many points.

    Args:
        points: (N, D) unit vectors; of more than `most` a centroid a sample is taken.
    """
    import faiss

    count = min(count, len(points))
    if count <= 1:
        return _unit(points.mean(axis=0, keepdims=True))
    found = faiss.Kmeans(
        points.shape[1], count, niter=rounds, seed=seed, spherical=True,
        min_points_per_centroid=1, max_points_per_centroid=most,
    )  # fmt: skip
    found.train(np.ascontiguousarray(points))
    return _unit(np.asarray(found.centroids, np.float32))


def _sample(random: np.random.Generator, total: int, count: int) -> NDArray[np.int64]:
    if count >= total:
        return np.arange(total)
    return np.sort(random.choice(total, count, replace=False))


def _closeness(vectors: Floats, centroids: Floats) -> Floats:
    """(B, C), larger for nearer."""
    return np.asarray(vectors @ centroids.T, np.float32)


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _top(values: Floats, count: int) -> NDArray[np.int64]:
    """(B, count) columns of the largest values, in any order; fewer where there are fewer."""
    if values.shape[1] <= count:
        return np.tile(np.arange(values.shape[1]), (len(values), 1))
    return np.argpartition(-values, count - 1, axis=1)[:, :count]
