"""The limit that scoring is measured against: the model's forward alone, at its best.

    python -m pipelines.bench.score_forward MODEL WEIGHTS PAIRS.jsonl

Tensors lie in memory, nothing is decoded, tokenised, computed besides or stored. It is open_clip's
own forward under torch.inference_mode, over a sweep of batch sizes, with all CPUs inside each
product or with one batch a CPU side by side; the fastest counts, for pictures and texts each.

Texts are taken twice: padded to the model's 77 tokens, as open_clip and clip-retrieval run them,
and cut to the longest of the batch among texts sorted by length, which is the least that a padded
forward can do and close to what we compute.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

BATCH_SIZES = (16, 32, 64, 128)
COUNT = 128


def best_forward(model: Any, pictures: torch.Tensor, tokens: torch.Tensor) -> dict[str, float]:
    """Seconds a picture, a padded text and a trimmed text, each at the best way to run it."""
    lengths = tokens.argmax(dim=1) + 1
    tokens = tokens[lengths.argsort()]

    def trimmed(batch: torch.Tensor) -> torch.Tensor:
        return _encode_trimmed(model, batch)

    with _inference():
        return {
            "picture": _best(model.encode_image, pictures),
            "padded_text": _best(model.encode_text, tokens),
            "trimmed_text": _best(trimmed, tokens),
        }


def _encode_trimmed(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's encode_text over no more positions than the longest text of the batch has."""
    from open_clip.transformer import text_global_pool

    length = int(tokens.argmax(dim=1).max()) + 1
    tokens = tokens[:, :length]
    dtype = model.transformer.get_cast_dtype()
    x = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length].to(dtype)
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    pooled: torch.Tensor = text_global_pool(x, tokens, model.text_pool_type) @ model.text_projection
    return pooled


def _best(forward: Callable[[torch.Tensor], Any], inputs: torch.Tensor) -> float:
    import torch

    cpus = os.cpu_count() or 1
    best = float("inf")
    for size in BATCH_SIZES:
        batches = inputs.split(size)
        torch.set_num_threads(cpus)
        best = min(best, _timed(lambda b=batches: [forward(batch) for batch in b], batches[0]))  # type: ignore[misc]
        torch.set_num_threads(1)
        with ThreadPoolExecutor(cpus) as pool:

            def one(batch: torch.Tensor) -> None:
                with _inference():
                    forward(batch)

            best = min(best, _timed(lambda b=batches: list(pool.map(one, b)), batches[0]))  # type: ignore[misc]
    return best / len(inputs)


def _timed(run: Callable[[], Any], first: torch.Tensor) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _inference() -> Any:
    import torch

    return torch.inference_mode()


@click.command()
@click.argument("name")
@click.argument("weights", type=click.Path(path_type=Path))
@click.argument("pairs", type=click.Path(path_type=Path))
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16"]))
def main(name: str, weights: Path, pairs: Path, precision: str) -> None:
    """Print seconds a picture and a text as JSON."""
    import open_clip
    import torch

    lines = pairs.read_text("utf-8").splitlines()
    step = max(1, len(lines) // COUNT)
    texts = [
        json.loads(line)["text"].removeprefix("<__dj__image> ") for line in lines[::step][:COUNT]
    ]
    model = open_clip.create_model(name, pretrained=str(weights), precision=precision).eval()
    size = model.visual.image_size
    side = size if isinstance(size, int) else size[0]
    pictures = torch.randn(len(texts), 3, side, side, dtype=getattr(torch, _DTYPES[precision]))
    tokens = open_clip.get_tokenizer(name)(texts)
    model.requires_grad_(False)
    best_forward(model, pictures[:8], tokens[:8])  # warm
    click.echo(json.dumps(best_forward(model, pictures, tokens)))


_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}

if __name__ == "__main__":
    main()
