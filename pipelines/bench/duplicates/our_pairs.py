"""Our pairs for `caplab bench duplicates`: the library's functions on fingerprints in memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.pairs import Search, near_pairs
from curate.duplicates.samples import Found, Samples, is_structured
from curate.duplicates.settings import DuplicateSettings
from curate.duplicates.verify.thumbnails import in_memory
from curate.duplicates.verify.verifier import Verifier
from curate.pictures.decode import PictureView, decode_batches
from curate.scoring.scorers.image_basics import Fingerprint

LEVELS = {
    "hashes": DuplicateSettings(descriptor_similarity=None),
    "near": DuplicateSettings(),
}
"""Candidates from perceptual hashes alone, and from copy descriptors as well (the default)."""


@dataclass(frozen=True)
class Fingerprints:
    """What `score` stores of B pictures, as arrays."""

    phash: NDArray[np.uint64]
    thumbnail: NDArray[np.uint8]
    descriptor: NDArray[np.float16]
    cpu_seconds: float
    """Decoding and fingerprints, without loading the descriptor's weights."""

    def __add__(self, other: Fingerprints) -> Fingerprints:
        return Fingerprints(
            np.concatenate([self.phash, other.phash]),
            np.concatenate([self.thumbnail, other.thumbnail]),
            np.concatenate([self.descriptor, other.descriptor]),
            self.cpu_seconds + other.cpu_seconds,
        )


def fingerprints(files: list[Path]) -> Fingerprints:
    """Decode and fingerprint files as `caplab curate` does.

    Raises:
        ValueError: one does not decode.
    """
    import torch

    torch.set_num_threads(1)
    scorer = Fingerprint()
    scorer.open()
    scorer.score({"canvas": np.zeros((16, 128, 128, 3), np.uint8), "pixel_sha256": [None] * 16})
    parts = []
    started = time.process_time()
    raw = ((str(file), file.read_bytes()) for file in files)
    for batch in decode_batches(raw, PictureView(1), 64):
        if not batch.decoded.all():
            raise ValueError(f"undecodable: {next(words for words in batch.error if words)}")
        parts.append(scorer.score({"canvas": batch.canvas, "pixel_sha256": batch.pixel_sha256}))
    phash, thumbnail, descriptor = (
        np.concatenate([part[name] for part in parts])
        for name in ("phash", "thumbnail", "copy_descriptor")
    )
    seconds = time.process_time() - started
    return Fingerprints(phash, thumbnail, descriptor.astype(np.float16), seconds)


def pairs(found: Fingerprints, level: str, scratch: Path, fresh: int = 0) -> Found:
    """Pairs of rows that are copies at a level of LEVELS.

    Args:
        scratch: an empty folder.
        fresh: only pairs with at least one of the last `fresh` rows; 0 for all.
    """
    total = len(found.phash)
    samples = Samples(
        keys=np.array([f"{row:032d}" for row in range(total)], "S32"),
        sha256=np.zeros((total, 2), np.uint64),
        pixel_sha256=np.zeros((total, 2), np.uint64),
        phash=found.phash,
        descriptor=found.descriptor,
        structured=is_structured(found.thumbnail),
        thumbnails=in_memory(found.thumbnail, scratch),
    )
    settings = LEVELS[level]
    new = np.arange(total) >= total - fresh if fresh else None
    chosen = np.flatnonzero(samples.structured)
    return near_pairs(samples, chosen, Verifier(samples, settings), settings, Search(new))
