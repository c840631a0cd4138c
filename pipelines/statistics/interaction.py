"""Does it hang on how one asks? Training captions by prompt form: a difference of differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.statistics.interval import (
    Estimate,
    Floats,
    analysed,
    finished,
    linearised,
    membership,
)


def interaction(
    on_f: Floats,
    intents_f: Sequence[Any] | NDArray[Any],
    on_g: Floats,
    intents_g: Sequence[Any] | NDArray[Any],
) -> Estimate:
    """(a - b on form f) - (a - b on form g), of the same seeds.

    Forms are paired by seed, and by intent wherever they ask for the same one: an intent's part in
    both means is one cluster. Forms may share all, some or none of their intents.

    Args:
        on_f, on_g: `(S, P)` and `(S, Q)` differences a - b, NaN = undefined.
        intents_f, intents_g: `(P,)` and `(Q,)`.
    """
    defined = [~np.isnan(each).all(0) for each in (on_f, on_g)]
    values = [each[:, used] for each, used in zip((on_f, on_g), defined, strict=True)]
    intents = [np.asarray(i)[used] for i, used in zip((intents_f, intents_g), defined, strict=True)]
    belongs = membership(np.concatenate(intents))
    split = len(intents[0])
    (seeds_f, cells_f), (seeds_g, cells_g) = (
        linearised(values[0], belongs[:split]),
        linearised(values[1], belongs[split:]),
    )
    largest = np.asarray(max(np.nanmax(np.abs(each), initial=0.0) for each in values))
    return finished(analysed(seeds_f - seeds_g, cells_f - cells_g, largest))
