"""Fingerprints as a scorer, so that they come out of the same decode as everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.base.files import sha256_file
from curate.pictures.copy_descriptor import WEIGHTS, CopyDescriptor
from curate.pictures.perceptual_hashes import VIEWS, perceptual_hashes, thumbnails
from curate.scoring.scorers.scorer import Column, Columns, Scorer


class Fingerprint(Scorer):
    """Adds `phash` (B, views) uint64, `thumbnail` (B, 4608) uint8, `copy_descriptor` (B, 64).

    The hash of the pixels comes from the reader, who has them, and goes to the same table. See
    curate.pictures.perceptual_hashes and curate.pictures.copy_descriptor.
    """

    name = "fingerprint"
    needs = ("canvas", "pixel_sha256")
    adds = ("phash", "thumbnail", "copy_descriptor", "pixel_hash")

    def signature(self) -> dict[str, Any]:
        """The views, the descriptor's weights and the version of the formulas."""
        return {"version": 2, "views": VIEWS, "descriptor": sha256_file(WEIGHTS)}

    def open(self) -> None:
        """Load the descriptor's weights."""
        self._descriptor = CopyDescriptor()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def score(self, columns: Mapping[str, Column]) -> Columns:
        canvas = columns["canvas"]
        return {
            "phash": perceptual_hashes(canvas),
            "thumbnail": thumbnails(canvas),
            "copy_descriptor": self._descriptor(canvas),
            "pixel_hash": columns["pixel_sha256"],
        }
