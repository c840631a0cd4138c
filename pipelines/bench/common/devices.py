"""A benchmark's GPU: whether there is one, and how to read the clock beside it."""

from __future__ import annotations

import torch

from curate.base.errors import ConfigError


def demand(device: str) -> None:
    """Refuse a device that is not here.

    Raises:
        ConfigError: torch sees no GPU.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("There is no GPU that torch can use here; leave --gpu out.")


def finish(device: torch.device | str) -> None:
    """Wait until the device has done all that it was given."""
    if str(device).startswith("cuda"):
        torch.cuda.synchronize(device)
