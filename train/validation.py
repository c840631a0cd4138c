"""What is looked at during training: validation loss at fixed times and noise, and sample grids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image

from curate.base.files import atomic_path
from curate.store.caption_blend import blend_order
from train.captions import encode
from train.objective import loss_per_picture, noised
from train.sample import Trained, from_uint8, generate
from train.settings import ModelConfig, TrainSettings
from train.shards import TrainingSamples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TIMES = 8
EMPTY = "empty"
# The same in every run, whatever its seed: validation losses of two runs may be compared.
VALIDATION_SEED = 20_000_001
GRID_SEED = 10_000_001

VALIDATION = pa.schema(
    [
        ("step", pa.int64()),
        ("caption_kind", pa.string()),  # "empty" = no caption
        ("timestep", pa.float64()),
        ("loss", pa.float64()),
    ]
)


class Validation:
    """A fixed held-out set, seen under every caption kind and under the empty caption.

    t = (i + 0.5) / 8 with fixed noise, after the MLPerf FLUX benchmark and torchtitan's
    validate.py. The gap between a kind and the empty caption is how much the model makes of the
    text. Cost: 8 * (kinds + 1) forward passes of the held-out set.
    """

    def __init__(
        self,
        samples: TrainingSamples,
        tokenizer: PreTrainedTokenizerFast,
        config: ModelConfig,
        settings: TrainSettings,
    ) -> None:
        self.settings = settings
        window = config.text_tokens
        self.x0 = from_uint8(torch.from_numpy(samples.images))
        # A kind counts where every held-out picture has it, so that all kinds see the same ones.
        complete = {
            kind: [own[0] for own in texts]
            for kind, texts in sorted(samples.captions.items())
            if all(texts)
        }
        self.captions = {
            kind: torch.from_numpy(encode(tokenizer, texts, window)[0].astype(np.int64))
            for kind, texts in {**complete, EMPTY: [""] * len(samples)}.items()
        }
        self.prompts = list(settings.grid_prompts)
        if not self.prompts:
            first = next((kind for kind in blend_order(settings.captions) if kind in complete), "")
            self.prompts = complete.get(first, [])
        self.prompts = self.prompts[: settings.grid_size]

    @torch.inference_mode()
    def rows(self, trained: Trained, step: int) -> list[dict[str, Any]]:
        """Rows of the VALIDATION table."""
        device, dtype, batch = trained.device, trained.dtype, self.settings.batch_size
        rows = []
        for i in range(TIMES):
            time = (i + 0.5) / TIMES
            generator = torch.Generator().manual_seed(VALIDATION_SEED + i)
            noise = torch.randn(self.x0.shape, generator=generator)
            t = torch.full((len(self.x0),), time)
            x_t = noised(self.x0, noise, t)
            for kind, tokens in self.captions.items():
                losses = []
                for start in range(0, len(tokens), batch):
                    part = slice(start, start + batch)
                    ids = tokens[part].to(device)
                    mask = (ids != trained.tokenizer.pad_token_id).to(dtype)
                    output = trained.model(
                        x_t[part].to(device, dtype), t[part].to(device), ids, mask
                    )
                    losses.append(
                        loss_per_picture(
                            output.float().cpu(),
                            self.x0[part],
                            noise[part],
                            t[part],
                            self.settings.prediction,
                            self.settings.loss_weighting,
                        )
                    )
                loss = float(torch.cat(losses).mean())
                rows.append({"step": step, "caption_kind": kind, "timestep": time, "loss": loss})
        return rows

    def grid(self, trained: Trained) -> NDArray[np.uint8]:
        """Pictures (N, R, R, 3) uint8 for the fixed prompts, from fixed noise."""
        return generate(trained, self.prompts, GRID_SEED)


def validation_means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Caption kind -> mean loss over timesteps, at the last step that was validated."""
    last = max((row["step"] for row in rows), default=None)
    by_kind: dict[str, list[float]] = {}
    for row in rows:
        if row["step"] == last:
            by_kind.setdefault(row["caption_kind"], []).append(row["loss"])
    return {kind: float(np.mean(losses)) for kind, losses in by_kind.items()}


def write_grid(path: Path, pictures: NDArray[np.uint8], least_side: int = 96) -> None:
    """Write pictures (N, R, R, 3) as one PNG, about square, enlarged by a whole factor."""
    if not len(pictures):
        return
    factor = max(1, least_side // pictures.shape[1])
    tiles = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    n, side = len(tiles), tiles.shape[1]
    columns = int(np.ceil(np.sqrt(n)))
    rows = int(np.ceil(n / columns))
    gap = 4
    sheet = np.full((rows * (side + gap) + gap, columns * (side + gap) + gap, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (gap + place * (side + gap) for place in divmod(index, columns))
        sheet[top : top + side, left : left + side] = tile
    with atomic_path(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")
