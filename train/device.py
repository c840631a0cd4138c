"""Where to compute, and in which precision."""

from __future__ import annotations

import torch

from curate.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device that `name` means; "auto" = cuda where there is one, else cpu.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"There is no device {name!r}; use auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("This machine has no CUDA device; use --device cpu.")
    return device


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """What to compute in: float32 or bfloat16; "auto" = whichever is faster on `device`.

    A CPU with AMX multiplies bfloat16 about eight times as fast as float32, one without it five
    times slower, so there float32 is taken.
    """
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return torch.bfloat16 if capabilities.get("amx_bf16") else torch.float32
