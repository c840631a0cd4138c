"""`caplab bench demo`: seconds and peak memory of each stage of the demo."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.bench.figures import Figure
from pipelines.demo import demo
from pipelines.demo_settings import DemoSettings


def demo_figures(out: Path | None, settings: DemoSettings | None = None) -> list[Figure]:
    """Run the demo in a new folder (or in `out`) and return its costs.

    There is no peer that does the whole job and no goal for a machine that is not named.
    """
    directory = out or Path(tempfile.mkdtemp(prefix="caplab-bench-")) / "demo"
    costs = demo(directory, settings or DemoSettings()).costs
    figures = []
    for cost in costs:
        figures.append(Figure(f"demo/{cost.stage}/wall", round(cost.seconds, 1), "s"))
        peak = cost.peak_memory_bytes >> 20
        figures.append(Figure(f"demo/{cost.stage}/peak_memory", peak, "MiB"))
    total = round(sum(cost.seconds for cost in costs), 1)
    return [*figures, Figure("demo/total/wall", total, "s")]
