"""`caplab bench demo`: seconds and peak memory of each stage of the demo."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from pipelines.demo import demo
from pipelines.demo_settings import DemoSettings


def bench_demo(out: Path | None, as_json: bool, settings: DemoSettings | None = None) -> str:
    """Run the demo in a new folder (or in `out`) and return its costs.

    With `as_json`, one object a line: name, value, unit, peer, ratio, goal, met. There is no peer
    that does the whole job and no goal for a machine that is not named, so these are null.
    """
    directory = out or Path(tempfile.mkdtemp(prefix="caplab-bench-"))
    summary = demo(directory / "demo" if out is None else directory, settings or DemoSettings())
    rows = []
    for cost in summary.costs:
        rows.append((f"demo/{cost.stage}/wall", round(cost.seconds, 1), "s"))
        rows.append((f"demo/{cost.stage}/peak_memory", cost.peak_memory_bytes >> 20, "MiB"))
    rows.append(("demo/total/wall", round(sum(c.seconds for c in summary.costs), 1), "s"))
    if as_json:
        return "\n".join(
            json.dumps(
                {
                    "name": name,
                    "value": value,
                    "unit": unit,
                    "peer": None,
                    "ratio": None,
                    "goal": None,
                    "met": None,
                }
            )
            for name, value, unit in rows
        )
    return "\n".join(f"{name:<32}{value:>10} {unit}" for name, value, unit in rows)
