"""Progress bars with rate and time left: live on a terminal, one line now and then in a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def tell(sentence: str) -> None:
    """Print a sentence on stderr, above a bar that may stand there."""
    tqdm.write(sentence, file=sys.stderr)


def progress(
    total: int | None, description: str, unit: str = "sample", initial: int = 0, **options: Any
) -> tqdm[Any]:
    """A tqdm bar on stderr that shows count, rate and time left.

    In a log file (stderr is no terminal) it prints at most every ten seconds, so a run of hours
    leaves hundreds of lines and not a million carriage returns.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=f" {unit}",
        unit_scale=total is not None and total >= 100_000,
        mininterval=0.2 if terminal else 10.0,
        maxinterval=10.0,
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        smoothing=0.1,
        file=sys.stderr,
        **options,
    )
