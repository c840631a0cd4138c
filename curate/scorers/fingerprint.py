"""Fingerprints as a scorer, so that they come out of the same decode as everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.fingerprints import VIEWS, perceptual_hashes, thumbnails
from curate.scorers.scorer import Column, Columns, Scorer


class Fingerprint(Scorer):
    """Adds `phash` (B, views) uint64 and `thumbnail` (B, T, T, 3) uint8; see curate.fingerprints.

    The hash of the pixels comes from the reader, who has them, and goes to the same table.
    """

    name = "fingerprint"
    needs = ("canvas", "pixel_sha256")
    adds = ("phash", "thumbnail", "pixel_hash")

    def signature(self) -> dict[str, Any]:
        """The views and the version of the formulas."""
        return {"version": 1, "views": VIEWS}

    def score(self, columns: Mapping[str, Column]) -> Columns:
        canvas = columns["canvas"]
        return {
            "phash": perceptual_hashes(canvas),
            "thumbnail": thumbnails(canvas),
            "pixel_hash": columns["pixel_sha256"],
        }
