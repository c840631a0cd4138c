"""The fingerprint test: can a simple classifier tell two captioners apart by their wording?

Hashed character n-grams, logistic regression with an L2 penalty, five-fold cross-validation. Both
texts of a picture are in the same fold, so knowing the picture is no help, and each picture gives
one text of either side, so guessing is right half the time. A text classifier told captioners apart
at 99.7% in "Asymmetric Idiosyncrasies" (arXiv 2602.22734). What it sees, a diffusion model learns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recaption.judging.intervals import NOT_MEASURED, Estimate, ratio

CHANCE = 0.5
LEAST_PICTURES = 20
_LENGTHS = (1, 2, 3, 4)
_BUCKETS = 1 << 15
_FOLDS = 5
# Of the mean loss; weak, as n-gram vectors of unit length want.
_PENALTY = 1e-4
_ITERATIONS = 300
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def fingerprint(
    one: Sequence[str], other: Sequence[str], draws: int = 2000, seed: int = 0
) -> Estimate:
    """Accuracy of telling `one` from `other` on pictures that the classifier never saw.

    Args:
        one, other: N texts each, of the same N pictures in the same order (or of different
            pictures, paired by place).

    Returns:
        Share of right answers, 0.5 where the two cannot be told apart, with an interval over
        pictures for the classifiers as they were trained; not measured below 20 pictures.

    Cost: about a second for 1,000 pairs of 50 words.
    """
    count = len(one)
    if len(other) != count:
        raise ValueError(f"{count} texts on one side, {len(other)} on the other.")
    if count < LEAST_PICTURES:
        return NOT_MEASURED
    features = ngrams([*one, *other])
    wanted = np.repeat([1.0, -1.0], count)
    fold = np.random.default_rng(seed).permutation(count) % _FOLDS
    fold = np.concatenate([fold, fold])
    right = np.empty(2 * count)
    for held_out in range(_FOLDS):
        learn = fold != held_out
        weights = _fit(features[learn], wanted[learn])
        margin = wanted[~learn] * (features[~learn] @ weights[:-1] + weights[-1])
        right[~learn] = np.where(margin == 0, 0.5, margin > 0)
    return ratio((right[:count] + right[count:]) / 2, np.ones(count), draws, seed)


def ngrams(texts: Sequence[str]):  # type: ignore[no-untyped-def]
    """Counts of hashed character 1- to 4-grams: a sparse (N, 32768) matrix, rows of unit length.

    Counts enter as 1 + log(count), so that a long text is not told by its length alone. The start
    and end of a text are characters of their own.
    """
    from scipy import sparse

    rows, columns = [], []
    for row, text in enumerate(texts):
        marked = np.frombuffer(f"\x02{text}\x03".encode("utf-32-le", "replace"), np.uint32)
        hashes = [_hashed(marked, length) for length in _LENGTHS if len(marked) >= length]
        found = np.concatenate(hashes)
        rows.append(np.full(len(found), row))
        columns.append(found)
    place = (np.concatenate(rows), np.concatenate(columns))
    ones = np.ones(len(place[0]))
    matrix = sparse.csr_matrix((ones, place), shape=(len(texts), _BUCKETS))
    matrix.sum_duplicates()
    matrix.data = 1 + np.log(matrix.data)
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1))).ravel()
    return sparse.diags_array(1 / np.maximum(norms, 1e-12)) @ matrix


def _hashed(characters: NDArray[np.uint32], length: int) -> NDArray[np.int64]:
    """Bucket of every n-gram of `length` characters: (len - length + 1,)."""
    mixed = np.full(len(characters) - length + 1, length, np.uint64)
    for offset in range(length):
        part = characters[offset : offset + len(mixed)].astype(np.uint64)
        mixed = (mixed ^ part) * _MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(49)).astype(np.int64)


def _fit(features, wanted):  # type: ignore[no-untyped-def]
    """Weights and, last, the bias that minimise the mean logistic loss and the penalty.

    Nesterov's accelerated gradient. Rows have unit length, so with the bias the loss bends by at
    most 1/4 * 2 + penalty in any direction: the step is safe without a search.
    """
    count, width = features.shape
    turned = features.T.tocsr()
    step = 1 / (0.5 + _PENALTY)
    weights = ahead = np.zeros(width + 1)
    for iteration in range(_ITERATIONS):
        margin = wanted * (features @ ahead[:-1] + ahead[-1])
        slope = -wanted / (1 + np.exp(np.clip(margin, -500, 500))) / count
        gradient = np.append(turned @ slope + _PENALTY * ahead[:-1], slope.sum())
        moved = ahead - step * gradient
        ahead = moved + iteration / (iteration + 3) * (moved - weights)
        weights = moved
    return weights
