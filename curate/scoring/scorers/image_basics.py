"""What can be said of a picture without a CLIP: light, colour, sharpness, and its fingerprints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.files import sha256_file
from curate.pictures.copy_descriptor import WEIGHTS, CopyDescriptor
from curate.pictures.perceptual_hashes import VIEWS, perceptual_hashes, thumbnails
from curate.scoring.scorers.scorer import Column, Columns, ModelScorer, Scorer

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in luma (ITU-R BT.601), as JPEG and Pillow use them."""


TOLERANCE = 12
"""Levels of 255 that JPEG may move a pixel of a plain area by."""


class ImageBasics(Scorer):
    """Basic quantities of a picture.

    aspect_ratio    longer side / shorter side, >= 1
    brightness      mean luma, 0 (black) to 1 (white)
    contrast        standard deviation of luma, 0 to 0.5
    entropy         Shannon entropy of the 256-bin luma histogram, 0 to 8 bits
    colourfulness   Hasler and Süsstrunk's M3 ("Measuring colourfulness in natural images", 2003):
                    0 is grey, about 33 moderately, above 82 highly colourful
    blur            variance of the Laplacian (Pech-Pacheco et al., 2000) of the luma in 0..255, at
                    a shorter side of at most 256 px: LOW means blurred

    border_share    share of the picture's area that is a frame of one colour, 0 to 1: the rows and
                    columns from each edge on that nowhere differ from the edge's colour by more
                    than 12 of 255; 1 for a picture of one colour
    grey_share      share of pixels without colour (largest minus least channel at most 12), 0 to 1;
                    1 for a black-and-white picture

    Width and height are columns of the samples table. All but `blur` are array operations over
    the batch's canvases; pictures differ in size, so `blur` is one OpenCV call a picture.
    """

    name = "image_basics"
    needs = ("canvas", "grey", "size")
    adds = (
        "aspect_ratio",
        "brightness",
        "contrast",
        "entropy",
        "colourfulness",
        "blur",
        "border_share",
        "grey_share",
    )

    def signature(self) -> dict[str, Any]:
        """Nothing but the version of these formulas."""
        return {"version": 2}

    def score(self, columns: Mapping[str, Column]) -> Columns:
        canvas, size = columns["canvas"], columns["size"].astype(np.float32)
        luma = canvas @ LUMA
        shorter = np.maximum(size.min(axis=1), 1)
        return {
            "aspect_ratio": size.max(axis=1) / shorter,
            "brightness": luma.mean(axis=(1, 2)) / 255,
            "contrast": luma.std(axis=(1, 2)) / 255,
            "entropy": luma_entropy(luma),
            "colourfulness": colourfulness(canvas),
            "blur": laplacian_variance(columns["grey"]),
            "border_share": border_share(canvas),
            "grey_share": grey_share(canvas),
        }


def grey_share(pictures: NDArray[np.uint8], tolerance: int = TOLERANCE) -> NDArray[np.float32]:
    """Share of pixels whose largest and least channel are near: (B, H, W, 3) uint8 -> (B,)."""
    red, green, blue = (pictures[..., channel] for channel in range(3))
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    return np.asarray((most - least <= tolerance).mean(axis=(1, 2)), np.float32)


def border_share(pictures: NDArray[np.uint8], tolerance: int = TOLERANCE) -> NDArray[np.float32]:
    """Share of the area that is a frame of one colour: (B, H, W, 3) uint8 -> (B,)."""
    share = np.zeros(len(pictures), np.float32)
    height, width = pictures.shape[1:3]
    rows = _frame(pictures, tolerance)
    columns = _frame(pictures.swapaxes(1, 2), tolerance)
    inside = np.maximum(height - rows, 0) * np.maximum(width - columns, 0)
    share[:] = 1 - inside / (height * width)
    return share


def _frame(pictures: NDArray[np.uint8], tolerance: int) -> NDArray[np.int64]:
    """How many rows at the top and the bottom together have the colour of their edge: (B,)."""
    total = np.zeros(len(pictures), np.int64)
    for flipped in (pictures, pictures[:, ::-1]):
        edge = flipped[:, 0].astype(np.int16)
        colour = np.median(edge, axis=1)[:, None]
        # Most pictures have no frame, and their first row says so.
        framed = np.flatnonzero(np.abs(edge - colour).max(axis=(1, 2)) <= tolerance)
        if len(framed):
            difference = np.abs(flipped[framed].astype(np.int16) - colour[framed][:, None])
            plain = difference.max(axis=(2, 3)) <= tolerance
            total[framed] += np.where(plain.all(axis=1), plain.shape[1], plain.argmin(axis=1))
    return total


def luma_entropy(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy in bits of each picture's luma histogram: (B, H, W) in 0..255 -> (B,)."""
    count = len(luma)
    pixels = luma.reshape(count, luma.shape[1] * luma.shape[2])
    bins = np.rint(pixels).astype(np.int64) + 256 * np.arange(count)[:, None]
    histogram = np.bincount(bins.ravel(), minlength=256 * count).reshape(count, 256)
    share = histogram / np.maximum(histogram.sum(axis=1, keepdims=True), 1)
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1).astype(np.float32)


def colourfulness(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Hasler and Süsstrunk's M3, eq. (3): (B, H, W, 3) uint8 -> (B,)."""
    red, green, blue = np.moveaxis(pictures.astype(np.float32), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    axes = (1, 2)
    spread = np.hypot(rg.std(axis=axes), yb.std(axis=axes))
    centre = np.hypot(rg.mean(axis=axes), yb.mean(axis=axes))
    return np.asarray(spread + 0.3 * centre, np.float32)


def laplacian_variance(grey: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Variance of the 4-neighbour Laplacian of each (h, w) uint8 picture."""
    import cv2

    return np.array([cv2.Laplacian(picture, cv2.CV_32F).var() for picture in grey], np.float32)


class Fingerprint(ModelScorer[CopyDescriptor]):
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

    def load(self) -> CopyDescriptor:
        """The descriptor with its weights."""
        return CopyDescriptor()

    def score(self, columns: Mapping[str, Column]) -> Columns:
        canvas = columns["canvas"]
        return {
            "phash": perceptual_hashes(canvas),
            "thumbnail": thumbnails(canvas),
            "copy_descriptor": self.model(canvas),
            "pixel_hash": pa.array(columns["pixel_sha256"], pa.string()),
        }
