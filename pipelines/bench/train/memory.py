"""Memory of a whole run by the number of samples: `train` in a process of its own.

    python -m pipelines.bench.train.memory DATASET OUT

The run builds its index, collects its words, trains a few steps and exports. Its pictures are
tiny and shared, its captions and rows are not. The process writes down the most that was resident
until its first step, and in all.
"""

from __future__ import annotations

import io
import json
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipelines.bench.common.figures import Figures
from pipelines.bench.common.processes import run_measured
from pipelines.bench.train.pictures import KIND, SELECTION, repeated

_SIDE = 16
_WORDS = "old red house garden blue dress vintage table dog beach lamp river tall green door"


def memory_figures(work: Path, sizes: Sequence[int]) -> Figures:
    """MiB at each size, beside the smallest."""
    figures = Figures("train/memory")
    pictures = [coloured(number) for number in range(64)]
    peaks: dict[int, int] = {}
    for size in sorted(sizes):
        folder = work / f"samples-{size}"
        repeated(folder, size, pictures, (_SIDE, _SIDE), caption)
        command = [sys.executable, "-m", __name__, folder, work / f"run-{size}"]
        cost = run_measured(command, env={"CUDA_VISIBLE_DEVICES": ""})
        told = json.loads(cost.output.splitlines()[-1])
        peaks[size] = told["all"]
        smallest = min(peaks)
        beside = None if size == smallest else (f"{smallest:,} samples", peaks[smallest])
        goal = None if size == smallest else 1.2
        figures.add(f"{size}/peak", told["all"], "MiB", beside, at_most=goal)
        figures.add(f"{size}/until_first_step", told["first_step"], "MiB")
        figures.add(f"{size}/wall", cost.wall_seconds, "s")
        shutil.rmtree(folder)
    return figures


def caption(row: int) -> str:
    """Eight words, no two rows alike."""
    words = _WORDS.split()
    chosen = [words[row // len(words) ** place % len(words)] for place in range(8)]
    return f"{' '.join(chosen)} {row % 97}"


def coloured(number: int) -> bytes:
    out = io.BytesIO()
    colour = (number * 4, 255 - number * 4, number * 37 % 256)
    Image.new("RGB", (_SIDE, _SIDE), colour).save(out, "PNG")
    return out.getvalue()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _run(dataset: str, out: str) -> None:
    """Train four steps and print the peaks, MiB."""
    from train.run import train
    from train.settings import TrainSettings

    settings = TrainSettings(
        model="tiny-test",
        captions={KIND: 1.0},
        steps=4,
        batch_size=64,
        validation_share=0.02,
        device="cpu",
    )
    peaks: list[int] = []
    train(
        dataset,
        settings,
        out,
        SELECTION,
        on_step=lambda done, total, told: peaks.append(_peak()),
        say=lambda sentence: None,
    )
    print(json.dumps({"first_step": peaks[0], "all": _peak()}))


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2])
