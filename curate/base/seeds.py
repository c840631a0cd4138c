"""A generator of its own for every parameter, so that none hangs on what else a model has."""

from __future__ import annotations

import hashlib

import torch


def generator_of(seed: int, name: str) -> torch.Generator:
    """Of the parameter `name`, on the CPU."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
