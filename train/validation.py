"""What is looked at during training: validation loss at fixed times and noise, and sample grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from curate.base.files import atomic_path
from curate.store.caption_blend import blend_order
from train.model import Trained
from train.protocols import TextFeatures, Tokens
from train.sample import from_uint8, generate

TIMES = 8
EMPTY = "empty"
# The same in every run, whatever its seed: validation losses of two runs may be compared.
VALIDATION_SEED = 20_000_001
GRID_SEED = 10_000_001


class Validation:
    """A fixed held-out set, seen under every caption kind and under the empty caption.

    Times at even quantiles of the noise range with fixed noise, after the MLPerf FLUX benchmark
    and torchtitan's validate.py. The gap between a kind and the empty caption is how much the
    model makes of the text. Cost: 8 * (kinds + 1) forward passes of the held-out set; the features
    of a frozen text encoder and the latents are computed once.
    """

    def __init__(
        self,
        trained: Trained,
        pictures: NDArray[np.uint8],
        captions: Mapping[str, Sequence[str]],
        batch: int,
    ) -> None:
        """
        Args:
            pictures: (n, H, W, 3) held-out squares.
            captions: kind -> one text of each; a kind that some of them lack is left out.
            batch: pictures that are looked at together.
        """
        self.trained, self.batch, self.count = trained, batch, len(pictures)
        self._pictures = pictures
        self._x0: Tensor | None = None
        self._texts = {**dict(sorted(captions.items())), EMPTY: [""] * self.count}
        self._features: dict[tuple[str, int], TextFeatures] = {}
        settings = trained.settings
        prompts = list(settings.grid_prompts)
        if not prompts:
            kinds = (*blend_order(settings.captions), "blend")
            prompts = next((list(captions[kind]) for kind in kinds if kind in captions), [])
        self.prompts = prompts[: settings.grid_size]

    @torch.no_grad()
    def rows(self, step: int) -> list[dict[str, Any]]:
        """Rows of validation.parquet: step, caption_kind, timestep, loss."""
        trained, model = self.trained, self.trained.model
        device, dtype, objective = trained.device, trained.dtype, model.objective
        if self._x0 is None:
            self._x0 = torch.cat(
                [
                    model.latents.encode(
                        from_uint8(torch.from_numpy(self._pictures[part])).to(device)
                    ).cpu()
                    for part in self._parts()
                ]
            )
        x0 = self._x0
        side = trained.config.resolution
        size_ids = torch.tensor([side, side, 0, 0, side, side], dtype=torch.float32, device=device)
        unknown = torch.zeros(
            (1, len(trained.settings.condition_on)), dtype=torch.int64, device=device
        )
        rows = []
        for i, time in enumerate(objective.stratified_times(TIMES).tolist()):
            generator = torch.Generator().manual_seed(VALIDATION_SEED + i)
            noise = torch.randn(x0.shape, generator=generator)
            t = torch.full((self.count,), time)
            for kind in self._texts:
                losses = []
                for part in self._parts():
                    own = (x0[part], noise[part], t[part])
                    clean, drawn, when = (tensor.to(device) for tensor in own)
                    x_t = objective.noised(clean, drawn, when)
                    n = len(clean)
                    output = model(
                        objective.model_input(x_t, when).to(dtype),
                        objective.model_time(when),
                        self._text(kind, part),
                        size_ids.expand(n, -1),
                        unknown.expand(n, -1),
                    )
                    losses.append(objective.loss(output.float(), clean, drawn, x_t, when).cpu())
                loss = float(torch.cat(losses).mean())
                rows.append({"step": step, "caption_kind": kind, "timestep": time, "loss": loss})
        return rows

    def grid(self) -> NDArray[np.uint8]:
        """Pictures (N, R, R, 3) uint8 for the fixed prompts, from fixed noise."""
        return generate(self.trained, self.prompts, GRID_SEED, batch_size=self.batch)

    def _parts(self) -> list[slice]:
        return [slice(start, start + self.batch) for start in range(0, self.count, self.batch)]

    def _text(self, kind: str, part: slice) -> Tokens | TextFeatures:
        """What the model is told of a kind's captions: features where the encoder is frozen."""
        text, device, dtype = self.trained.model.text, self.trained.device, self.trained.dtype
        key = (kind, part.start)
        if key in self._features:
            return on_device(self._features[key], device, dtype)
        cut = self.trained.model.without_padding(text.tokenize(self._texts[kind][part]))
        tokens = {n: t.to(device) for n, t in cut.items()}
        if any(parameter.requires_grad for parameter in text.parameters()):
            return tokens
        features: TextFeatures = text(tokens)
        self._features[key] = on_device(features, torch.device("cpu"), dtype)
        return features


def on_device(features: TextFeatures, device: torch.device, dtype: torch.dtype) -> TextFeatures:
    """Features elsewhere; from pinned memory without waiting."""
    pooled = features.pooled
    return replace(
        features,
        sequence=features.sequence.to(device, dtype, non_blocking=True),
        mask=features.mask.to(device, dtype, non_blocking=True),
        pooled=None if pooled is None else pooled.to(device, dtype, non_blocking=True),
    )


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
