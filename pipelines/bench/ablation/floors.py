"""What two sets from one distribution get: floors of every distance at several N, and their cost.

    python -m pipelines.bench.ablation.floors [--width D] [--sizes 500,1000,5000]

Features are Gaussian, their variances fall as 1/rank and are 1 on average, in a random basis: some
40 effective dimensions of 2,048. The table tells how floors fall with N and what they cost; MIND,
FID and KID grow with the features' scale, so floors of one's own pictures and networks are the
judge's to tell.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipelines.judges.real import distances

Features = NDArray[np.float32]


def drawn(count: int, width: int, seed: int) -> Features:
    """(count, width) features; the distribution is the same for every seed."""
    mixing = np.random.default_rng(0).standard_normal((width, width), np.float32)
    variances = 1 / np.arange(1, width + 1)
    # Rows of `mixing` are all but orthogonal and have length sqrt(width).
    mixing *= np.sqrt(variances / variances.sum()).astype(np.float32)[:, None]
    noise = np.random.default_rng(1 + seed).standard_normal((count, width), np.float32)
    return np.asarray(noise @ mixing)


def metrics(width: int) -> dict[str, Callable[[Features, Features], dict[str, float]]]:
    """What is timed together -> metric names and values."""
    along = distances.directions(width)
    return {
        "mind": lambda x, y: {"mind": distances.mind(x, y, along)},
        "kid": lambda x, y: {"kid": distances.kernel_distance(x, y)},
        "fid": lambda x, y: {"fid": distances.frechet(x, y)},
        "cmmd": lambda x, y: {"cmmd": distances.cmmd(x, y)},
        "neighbours": distances.neighbourhoods,
        "vendi": lambda x, y: {"vendi": distances.vendi(x)},
    }


def table(sizes: list[int], width: int) -> str:
    """Markdown: a row a metric, floor at every N, and CPU seconds at the largest."""
    rows: dict[str, list[str]] = {}
    for size in sizes:
        x, y = drawn(size, width, 0), drawn(size, width, 1)
        for compute in metrics(width).values():
            start = time.process_time()
            values = compute(x, y)
            seconds = f"{time.process_time() - start:.2f}"
            for name, value in values.items():
                # The last cell is the largest set's time.
                rows[name] = [*rows.get(name, [])[: sizes.index(size)], f"{value:.4g}", seconds]
    head = ["metric", *(f"N = {size:,}" for size in sizes), f"CPU s at {max(sizes):,}"]
    lines = [head, ["---"] * len(head), *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--sizes", default="500,1000,5000")
    given = parser.parse_args()
    print(table([int(size) for size in given.sizes.split(",")], given.width))
