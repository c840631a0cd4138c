"""A pipeline in diffusers' layout as the model of `caplab evaluate`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import fingerprint, sha256_file
from curate.base.registry import said, tried
from curate.base.settings import Precision, dtype_of, precision_of

_BATCH = 8


class PublishedPipeline:
    """Any pipeline that DiffusionPipeline loads from safetensors, with no code of its folder."""

    def __init__(self, folder: Path, device: str, precision: Precision) -> None:
        self.folder, self.device, self.precision = folder, device, precision

    @property
    def mark(self) -> str:
        """16 hex digits of its weights and configurations."""
        kinds = ("model_index.json", "*/*.json", "*/*.safetensors")
        files = sorted(path for kind in kinds for path in self.folder.glob(kind))
        return fingerprint([(str(f.relative_to(self.folder)), sha256_file(f)) for f in files])

    @cached_property
    def pipeline(self) -> Any:
        """
        Raises:
            ConfigError: it does not load, or its weights are no safetensors.
        """
        from diffusers import DiffusionPipeline

        dtype = dtype_of(precision_of(self.precision, self.device, matrix_tiles=True))
        load = DiffusionPipeline.from_pretrained
        found = tried(lambda: load(self.folder, dtype=dtype, use_safetensors=True))
        if isinstance(found, Exception):
            raise ConfigError(f"The pipeline in {self.folder} does not load ({said(found)}).")
        found.set_progress_bar_config(disable=True)
        return found.to(self.device)

    def __call__(self, prompts: list[str], noise_keys: list[int]) -> NDArray[np.uint8]:
        """(N, R, R, 3) uint8; each picture's noise is of its key alone."""
        import torch

        parts = []
        for start in range(0, len(prompts), _BATCH):
            keys = noise_keys[start : start + _BATCH]
            noise = [torch.Generator().manual_seed(key) for key in keys]
            drawn = self.pipeline(
                prompts[start : start + _BATCH], generator=noise, output_type="np"
            )
            parts.append((np.asarray(drawn.images) * 255).round().astype(np.uint8))
        return np.concatenate(parts)
