"""What can be said of a picture without a model: aspect, light, contrast, colour, sharpness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.scorers.scorer import Column, Columns, Scorer

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in luma (ITU-R BT.601), as JPEG and Pillow use them."""


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

    Width and height are columns of the samples table. All but `blur` are array operations over
    the batch's canvases; pictures differ in size, so `blur` is one OpenCV call a picture.
    """

    name = "image_basics"
    needs = ("canvas", "grey", "size")
    adds = ("aspect_ratio", "brightness", "contrast", "entropy", "colourfulness", "blur")

    def signature(self) -> dict[str, Any]:
        """Nothing but the version of these formulas."""
        return {"version": 1}

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
        }


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
