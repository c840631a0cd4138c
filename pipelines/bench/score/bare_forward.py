"""The limit that scoring is measured against: the model's forward alone, at its best.

    python -m pipelines.bench.score.bare_forward MODEL WEIGHTS DATASET PRECISION

Tensors lie in memory, nothing is decoded, tokenised, computed besides or stored. It is open_clip's
own forward under torch.inference_mode, over a sweep of batch sizes; on a CPU with all of them
inside each product or with one batch a CPU side by side. The fastest counts, for pictures and
texts each.

Texts are taken twice: padded to the model's 77 tokens, as open_clip and clip-retrieval run them,
and cut to the longest of the batch among texts sorted by length, which is the least that a padded
forward can do and close to what we compute.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from curate.store.dataset import Dataset
from pipelines.bench.common.devices import finish

BATCH_SIZES = (16, 32, 64, 128)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def bare_forward(
    name: str,
    weights: Path,
    texts: Sequence[str],
    precision: str,
    device: str = "cpu",
    sizes: Sequence[int] = BATCH_SIZES,
) -> dict[str, float]:
    """`best_forward` of open_clip's own model on as many rows as the largest batch has."""
    import open_clip

    model = open_clip.create_model(
        name, pretrained=str(weights), precision=precision, device=device
    )
    model.eval().requires_grad_(False)
    count = max(sizes)
    side = model.visual.image_size
    side = side if isinstance(side, int) else side[0]
    pictures = torch.randn(count, 3, side, side, dtype=_DTYPES[precision], device=device)
    step = max(1, len(texts) // count)
    tokens = open_clip.get_tokenizer(name)(list(texts[::step][:count])).to(device)
    tokens = tokens.repeat(-(-count // len(tokens)), 1)[:count]
    return best_forward(model, pictures, tokens, sizes)


def best_forward(
    model: Any, pictures: torch.Tensor, tokens: torch.Tensor, sizes: Sequence[int] = BATCH_SIZES
) -> dict[str, float]:
    """Seconds a picture, a padded text and a trimmed text, each at the best way to run it."""
    tokens = tokens[tokens.argmax(dim=1).argsort()]
    return {
        "picture": _best(model.encode_image, pictures, sizes),
        "padded_text": _best(model.encode_text, tokens, sizes),
        "trimmed_text": _best(lambda batch: encode_trimmed(model, batch), tokens, sizes),
    }


def encode_trimmed(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's encode_text over no more positions than the longest text of the batch has."""
    from open_clip.transformer import text_global_pool

    length = int(tokens.argmax(dim=1).max()) + 1
    tokens = tokens[:, :length]
    dtype = model.transformer.get_cast_dtype()
    x = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    pooled: torch.Tensor = text_global_pool(x, tokens, model.text_pool_type) @ model.text_projection
    return pooled


def _best(
    forward: Callable[[torch.Tensor], Any], inputs: torch.Tensor, sizes: Sequence[int]
) -> float:
    """Seconds a row at the best batch size."""

    @torch.inference_mode()
    def one(batch: torch.Tensor) -> None:
        forward(batch)

    def timed(run: Callable[[], Any]) -> float:
        finish(inputs.device)
        started = time.perf_counter()
        run()
        finish(inputs.device)
        return time.perf_counter() - started

    cpus = os.cpu_count() or 1
    threads = torch.get_num_threads()
    seconds = []
    for size in sizes:
        batches = inputs.split(size)
        torch.set_num_threads(cpus)
        one(batches[0])  # warm
        seconds.append(timed(lambda batches=batches: [one(batch) for batch in batches]))  # type: ignore[misc]
        if inputs.device.type == "cpu":
            torch.set_num_threads(1)
            with ThreadPoolExecutor(cpus) as pool:
                seconds.append(timed(lambda batches=batches: list(pool.map(one, batches))))  # type: ignore[misc]
    torch.set_num_threads(threads)
    return min(seconds) / len(inputs)


def texts_of(dataset: Dataset) -> list[str]:
    """The texts of all pairs."""
    tables = [dataset.read_table("samples", s, columns=["alt_text"]) for s in dataset.shards()]
    return [text for table in tables for text in table.column("alt_text").to_pylist()]


if __name__ == "__main__":
    name, weights, directory, precision = sys.argv[1:]
    texts = texts_of(Dataset.open(directory))
    print(json.dumps(bare_forward(name, Path(weights), texts, precision)))
