"""Which device a captioner runs on, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch

from curate.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16", "float16"]


def device_of(device: str) -> str:
    """The device's name for torch; "auto" is the GPU if there is one.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device = {device!r}, but torch finds no GPU; use device = 'cpu'.")
    return device


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype:
    """Of weights and activations; "auto" is bfloat16 on a GPU and float32 on a CPU."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, precision)
    return dtype
