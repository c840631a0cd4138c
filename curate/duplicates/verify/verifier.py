"""Which candidate pairs are copies: what is cheap to see first, then the pixels.

A pair costs about 0.05 CPU ms to be turned down by its layout, 2 ms on the pixels, and twice that
where it is tried in both directions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.base.progress import progress
from curate.base.threads import in_threads
from curate.duplicates.candidates.neighbours import Pairs
from curate.duplicates.samples import Samples, similarity
from curate.duplicates.settings import CopyLimits, DuplicateSettings
from curate.duplicates.verify.agreement import compare, is_copy, is_plain
from curate.duplicates.verify.layout import may_be_copies

_BLOCK = 1024
"""Pairs at a time: a few seconds of work."""
_WORTH_TURNING, _WORTH_ALIKE = 0.35, 0.8
"""Misfit up to which a rejected pair is tried in the other direction, and cosine of the copy
descriptors from which on it is tried at any misfit."""
_LOST = 8.0
"""Differing cells, weighed, above which a pair of plain pictures is not lost but different."""
_BETTER, _BETTER_FIT = 0.7, 0.6
"""Shares of the misfit and of the final fit of which either must be left at most where the other
direction is believed instead."""


class Verifier:
    """Decides pairs on the pixels (duplicates.agreement). Memory: some blocks of thumbnails."""

    def __init__(self, samples: Samples, settings: DuplicateSettings) -> None:
        self.samples, self.settings = samples, settings
        self.limits = CopyLimits(
            settings.copy_share, settings.copy_disagreement, settings.copy_residual
        )

    def copies(self, pairs: Pairs) -> Pairs:
        """The pairs that are copies, either way round and mirrored or not."""
        blocks = [pairs[start : start + _BLOCK] for start in range(0, len(pairs), _BLOCK)]
        kept = [np.empty((0, 2), np.int64)]
        with progress(len(pairs), "duplicates ", "pair", disable=not blocks) as bar:
            verdicts = in_threads(self._are_copies, blocks, self.settings.duplicate_threads)
            for some, good in zip(blocks, verdicts, strict=True):
                kept.append(some[good])
                bar.update(len(some))
        return np.concatenate(kept)

    def _are_copies(self, pairs: Pairs) -> NDArray[np.bool_]:
        first, second = (self.samples.thumbnails.take(rows) for rows in pairs.T)
        return are_copies(first, second, similarity(self.samples.descriptor, pairs), self.limits)


def are_copies(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    alike: NDArray[np.float32],
    limits: CopyLimits,
) -> NDArray[np.bool_]:
    """Whether each pair of thumbnails, (P, 4608) uint8 each, shows copies of one picture.

    Args:
        alike: (P,) cosine of their copy descriptors.
    """
    good = np.zeros(len(first), bool)
    worth = np.flatnonzero(may_be_copies(first, second, alike))
    good[worth] = _agree(first[worth], second[worth], alike[worth], limits)
    return good


def _agree(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    alike: NDArray[np.float32],
    limits: CopyLimits,
) -> NDArray[np.bool_]:
    """As are_copies, on the pixels alone."""
    found = compare(first, second)
    good = is_copy(found, limits, alike)
    # Registration can get lost in one direction and not in the other, where it then fits better.
    worth = (found.misfit <= _WORTH_TURNING) | (alike >= _WORTH_ALIKE)
    differing = found.disagreement * np.maximum(found.agreeing, 1)
    worth &= ~(is_plain(found.rich, found.cornered) & (differing > _LOST))
    again = np.flatnonzero(~good & worth)
    turned = compare(second[again], first[again])
    better = turned.misfit <= _BETTER * found.misfit[again]
    better |= turned.fit <= _BETTER_FIT * found.fit[again]
    good[again] = better & is_copy(turned, limits, alike[again])
    return good
