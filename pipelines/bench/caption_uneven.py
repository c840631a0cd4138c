"""What it pays that rows leave when their text ends: the same captions in flight and by `generate`.

Some of the vocabulary ends a text, drawn at temperature 1, so lengths are geometric up to the
limit: more uneven than those of real captions. Both ways give the same words.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.base.errors import CaplabError
from curate.base.files import read_json, write_json
from pipelines.bench.caption_model import PRECISIONS
from pipelines.bench.figures import Figure
from recaption.engines.protocol import CaptionRequest, Sampling
from recaption.engines.transformers.engine import TransformersEngine

END_SHARE = 1 / 24


@dataclass(frozen=True)
class UnevenRun:
    """What to caption: texts of at most `tokens` tokens, `batch_size` rows at once."""

    device: str
    dtype: str
    tokens: int
    batch_size: int
    image_size: int


def uneven_figures(
    model: Path, pictures: Sequence[bytes], prompt: str, run: UnevenRun, name: str
) -> list[Figure]:
    """Pictures a second in flight beside `generate`, batch by batch, and how uneven texts were.

    Raises:
        CaplabError: the two ways did not give the same words in float32.
    """
    engine = TransformersEngine(
        _with_ends(model),
        device=run.device,
        precision=PRECISIONS[run.dtype],
        batch_size=run.batch_size,
        image_size=run.image_size,
    )
    rows = len(pictures)
    request = CaptionRequest(
        pictures, [prompt] * rows, list(range(rows)), Sampling(run.tokens, temperature=1.0)
    )
    speeds: dict[bool, float] = {}
    texts: dict[bool, list[str | None]] = {}
    lengths: list[int] = []
    for flies in (True, False, True, False):
        engine.in_flight = flies
        started = time.perf_counter()
        outcomes = engine.caption(request)
        speed = rows / (time.perf_counter() - started)
        speeds[flies] = max(speed, speeds.get(flies, 0.0))
        texts[flies] = [outcome.text for outcome in outcomes]
        lengths = [outcome.output_tokens or 0 for outcome in outcomes]
    if run.dtype == "float32" and texts[True] != texts[False]:
        raise CaplabError("Captions in flight differ from those of generate.")
    start = f"{name}/uneven_texts"
    speed, plain = speeds[True], speeds[False]
    peer = "ours through generate"
    return [
        Figure(f"{start}/images_per_second", speed, "images/s", peer, plain, 1.0, "higher"),
        Figure(f"{start}/output_tokens_mean", float(np.mean(lengths)), "tokens"),
        Figure(f"{start}/output_tokens_p95", float(np.quantile(lengths, 0.95)), "tokens"),
    ]


def _with_ends(model: Path) -> Path:
    """The same captioner, with END_SHARE of its vocabulary ending a text."""
    folder = model.with_name(f"{model.name}-with-ends")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder, copy_function=_link)
    config = read_json(model / "config.json")
    vocabulary = config["text_config"]["vocab_size"]
    path = folder / "generation_config.json"
    options = read_json(path)
    path.unlink()  # a link: the other captioner keeps its own
    step = round(1 / END_SHARE)
    write_json(path, options | {"eos_token_id": list(range(step, vocabulary, step))})
    return folder


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
