"""Captions against what the pictures are known to show: counts a picture, pooled with intervals.

Both sides always: a captioner that says little makes no mistakes, and one that lists everything
misses nothing. Precision is right / stated, recall is found / there, pooled over all pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recaption.judging.intervals import Estimate, ratio

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """One kind of statement over N pictures; every column is float64 (N,), a number of statements.

    Attributes:
        stated, right: how many the caption makes, and how many of those are true.
        there, found: how many are true of the picture, and how many of those the caption tells.
    """

    stated: Column
    right: Column
    there: Column
    found: Column

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, float, float]]) -> Tally:
        """From (stated, right, there, found), one a picture."""
        table = np.array(rows, np.float64).reshape(-1, 4)
        return cls(*table.T)


@dataclass(frozen=True)
class TruthCounts:
    """N captions against the truth of their pictures.

    Attributes:
        tallies: kind of statement (object, attribute, relation, count, ...) -> its counts.
        mentions, hallucinated: (N,) mentions of objects, and those of objects that are not there.
    """

    tallies: dict[str, Tally]
    mentions: Column
    hallucinated: Column


class Truth(Protocol):
    """What pictures show, and how to hold a caption against it."""

    @property
    def name(self) -> str:
        """What it is, for a heading."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: what was left out, and why."""

    def keys(self) -> pa.Array:
        """Keys of the samples whose truth is known."""

    def judge(self, keys: Sequence[str], texts: Sequence[str]) -> TruthCounts:
        """One caption for each of N keys."""


@dataclass(frozen=True)
class Rightness:
    """How right a set of captions is; intervals over pictures.

    Attributes:
        precision, recall: kind of statement -> share in 0..1; nan where nothing was stated, or
            nothing was there.
        counts: kind of statement -> (stated, right, there, found), summed.
        chair_i: hallucinated mentions / mentions. (Rohrbach et al. 2018)
        chair_s: captions with a hallucinated mention / captions. Both reward silence: read them
            beside the recall of objects.
        pictures: how many captions were held against the truth.
    """

    precision: dict[str, Estimate]
    recall: dict[str, Estimate]
    counts: dict[str, tuple[int, int, int, int]]
    chair_i: Estimate
    chair_s: Estimate
    pictures: int


def rightness(counts: TruthCounts, draws: int, seed: int = 0) -> Rightness:
    """Precision, recall and hallucinations of N captions."""
    tallies = counts.tallies
    return Rightness(
        precision={n: ratio(t.right, t.stated, draws, seed) for n, t in tallies.items()},
        recall={n: ratio(t.found, t.there, draws, seed) for n, t in tallies.items()},
        counts={
            n: (int(t.stated.sum()), int(t.right.sum()), int(t.there.sum()), int(t.found.sum()))
            for n, t in tallies.items()
        },
        chair_i=ratio(counts.hallucinated, counts.mentions, draws, seed),
        chair_s=ratio(
            (counts.hallucinated > 0).astype(np.float64), np.ones(len(counts.mentions)), draws, seed
        ),
        pictures=len(counts.mentions),
    )
