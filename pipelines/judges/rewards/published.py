"""Published reward models in their own environment: `PYTHON published.py NAME FOLDER`.

Runs under another interpreter, so it imports nothing of this project; program.py beside it tells
what FOLDER holds. What the environment needs: image-reward, hpsv2, hpsv3, or pyiqa (q-align).
Weights are fetched by these packages, some as pickles.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def imagereward(pictures: list[str], prompts: list[str]) -> list[Any]:
    """ImageReward (Xu et al. 2023, arXiv:2304.05977)."""
    import ImageReward  # type: ignore[import-not-found]

    model = ImageReward.load("ImageReward-v1.0")
    return [model.score(prompt, path) for path, prompt in zip(pictures, prompts, strict=True)]


def hpsv2(pictures: list[str], prompts: list[str]) -> list[Any]:
    """HPS v2.1 (Wu et al. 2023, arXiv:2306.09341)."""
    import hpsv2 as package  # type: ignore[import-not-found]

    return [
        package.score(path, prompt, hps_version="v2.1")[0]
        for path, prompt in zip(pictures, prompts, strict=True)
    ]


def hpsv3(pictures: list[str], prompts: list[str]) -> list[Any]:
    """HPSv3 (Ma et al. 2025, github.com/MizzenAI/HPSv3): the mean of its normal distribution."""
    from hpsv3 import HPSv3RewardInferencer  # type: ignore[import-not-found]

    model = HPSv3RewardInferencer(device="cuda")
    return [
        model.reward(prompts=[prompt], image_paths=[path])[0][0]
        for path, prompt in zip(pictures, prompts, strict=True)
    ]


def q_align(pictures: list[str], prompts: list[str]) -> list[Any]:
    """Q-Align (Wu et al. 2023, arXiv:2312.17090) by pyiqa: quality alone, prompts are not read."""
    import pyiqa  # type: ignore[import-not-found]

    model = pyiqa.create_metric("qalign")
    return [model(path, task_="quality") for path in pictures]


def main(name: str, folder: Path) -> None:
    """Score what the folder asks for."""
    models = {"imagereward": imagereward, "hpsv2": hpsv2, "hpsv3": hpsv3, "q-align": q_align}
    rows = [json.loads(line) for line in (folder / "asked.jsonl").read_text().splitlines()]
    paths = [str(folder / row["picture"]) for row in rows]
    scores = models[name](paths, [row["prompt"] for row in rows])
    with (folder / "scores.jsonl").open("w") as file:
        for row, score in zip(rows, scores, strict=True):
            file.write(json.dumps({"picture": row["picture"], "score": float(score)}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
