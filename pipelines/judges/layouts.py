"""Pictures in the folders that the official scorers of benchmarks read.

geneval         00000/metadata.jsonl and 00000/samples/0000.png
                github.com/djghosh13/geneval, README.md
geneval2        images/00000-0.png, and image_paths.json from each of the benchmark's prompts to
                the path of a picture (one a prompt; image_paths-1.json, ... of further noises)
                github.com/facebookresearch/GenEval2, README.md
t2i-compbench   samples/PROMPT_000000.png, numbered through
                github.com/Karine-Huang/T2I-CompBench, GORS_finetune/inference_eval.py
dpg             ITEM.png, a grid of up to 2 x 2 noises
                github.com/TencentQQGYLab/ELLA, dpg_bench/compute_dpg_bench.py
folder          PROMPT_ID-NOISE.png with a .txt beside it, and metadata.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from curate.base.errors import ConfigError
from pipelines.judges.asked import record


@dataclass(frozen=True)
class Shown:
    """A prompt (a row of PROMPTS) and its pictures, by noise."""

    prompt: Mapping[str, Any]
    pictures: Sequence[Image.Image]

    @property
    def text(self) -> str:
        """What a benchmark knows the prompt by: its own text, however it was reworded."""
        intent: str | None = self.prompt["intent"]
        wanted = record(intent)
        if wanted is not None and isinstance(wanted.get("prompt"), str):
            return str(wanted["prompt"])
        return intent if intent and wanted is None else str(self.prompt["prompt"])


Files = Iterator[tuple[str, Image.Image | str]]
"""(place below the folder `out`, picture or text)."""


def geneval(shown: Sequence[Shown], out: Path) -> Files:
    """Each prompt's record, and its pictures numbered by noise."""
    for number, one in enumerate(shown):
        wanted = record(one.prompt["intent"])
        if wanted is None or not {"tag", "include"} <= wanted.keys():
            raise ConfigError(
                f"The prompt {one.prompt['prompt']!r} has no GenEval record for an intent; ask "
                f"with GenEval's evaluation_metadata.jsonl as the prompt file."
            )
        line = json.dumps({**wanted, "prompt": one.text}, ensure_ascii=False)
        yield f"{number:05d}/metadata.jsonl", line + "\n"
        for noise, picture in enumerate(one.pictures):
            yield f"{number:05d}/samples/{noise:04d}.png", picture


def geneval2(shown: Sequence[Shown], out: Path) -> Files:
    """Numbered pictures, and a map of absolute paths for each noise."""
    maps: dict[int, dict[str, str]] = {}
    for number, one in enumerate(shown):
        for noise, picture in enumerate(one.pictures):
            name = f"images/{number:05d}-{noise}.png"
            maps.setdefault(noise, {})[one.text] = str(out.absolute() / name)
            yield name, picture
    for noise, places in maps.items():
        name = f"image_paths-{noise}.json" if noise else "image_paths.json"
        yield name, json.dumps(places, indent=1, ensure_ascii=False)


def t2i_compbench(shown: Sequence[Shown], out: Path) -> Files:
    """All pictures in one folder; the scorer takes the prompt from the name, up to "_"."""
    number = 0
    for one in shown:
        name = one.text
        if "_" in name or "/" in name or len(name.encode()) > 240:
            raise ConfigError(
                f"T2I-CompBench takes prompts from file names, and {name[:60]!r} is too long for "
                f"one or holds _ or /."
            )
        for picture in one.pictures:
            yield f"samples/{name}_{number:06d}.png", picture
            number += 1


def dpg(shown: Sequence[Shown], out: Path) -> Files:
    """One grid a prompt: noises 0 to 3, left to right and down, as the scorer cuts them."""
    for one in shown:
        wanted = record(one.prompt["intent"]) or {}
        name = str(wanted.get("item_id", one.prompt["intent_id"]))
        if "." in name or "/" in name:
            raise ConfigError(f"DPG-Bench reads an item's id up to a dot: {name!r} has . or /.")
        side = one.pictures[0].width
        several = len(one.pictures) > 1
        grid = Image.new("RGB", (2 * side, 2 * side) if several else (side, side))
        for noise, picture in enumerate(one.pictures[:4]):
            grid.paste(picture, (noise % 2 * side, noise // 2 * side))
        yield f"{name}.png", grid


def folder(shown: Sequence[Shown], out: Path) -> Files:
    """Every picture with its prompt beside it, and all that is known in metadata.jsonl."""
    lines = []
    for one in shown:
        for noise, picture in enumerate(one.pictures):
            name = f"{one.prompt['prompt_id']}-{noise}"
            yield f"{name}.png", picture
            yield f"{name}.txt", str(one.prompt["prompt"])
            row = {"file_name": f"{name}.png", "noise": noise, **one.prompt}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    yield "metadata.jsonl", "".join(lines)


LAYOUTS: Mapping[str, Callable[[Sequence[Shown], Path], Files]] = {
    "geneval": geneval,
    "geneval2": geneval2,
    "t2i-compbench": t2i_compbench,
    "dpg": dpg,
    "folder": folder,
}


def write(files: Files, out: Path) -> int:
    """Write a layout's files below `out`; how many pictures there are."""
    count = 0
    for name, content in files:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            content.save(path, compress_level=1)
            count += 1
    return count
