"""How much of a picture is text, or faces: areas of what an object detector of transformers finds.

Each picture is prepared by the model's own processor, alone, and pictures of one size go through
the model together: nothing is padded, so a score does not depend on its neighbours. What the
model's own post-processing calls found, by its own threshold, is drawn on the picture's pixels:
boxes that overlap count once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.reasons import words
from curate.base.settings import device_of
from curate.base.weights import weight_hashes
from curate.pictures.decode import PictureView
from curate.scoring.models.preparation import by_shape
from curate.scoring.models.source import (
    label_indices,
    labels_of,
    model_folder,
    small_files,
    split_labels,
)
from curate.scoring.scorers.scorer import VIEW_PREFIX, Column, Columns, ModelScorer

if TYPE_CHECKING:
    import torch

    from curate.scoring.settings import ScoreSettings

LONGEST = 1024
"""Longest side in pixels of a picture as the processor is given it."""


class Area(ModelScorer[Any]):
    """Adds `NAME`, the share of the picture's area that is found, 0 to 1, and `NAME_error`.

    Args:
        column: NAME.
        given: MODEL@LABEL+LABEL of an object detector (AutoModelForObjectDetection), text detectors
            as PP-OCR's among them; no label where the model has but one.
        largest: add `NAME_largest` as well, the share of the largest box.
        device, draft: as for Clip.

    Raises:
        ConfigError: no such model or label.
    """

    def __init__(
        self, column: str, given: str, largest: bool, device: str = "auto", draft: bool = True
    ) -> None:
        self.name, self.error = column, f"{column}_error"
        self.adds: tuple[str, ...] = (column, self.error)
        self.largest = f"{column}_largest" if largest else None
        if self.largest:
            self.adds = (column, self.largest, self.error)
        self.needs = (f"{VIEW_PREFIX}{column}", "pixel_sha256")
        self.source, labels = split_labels(given)
        self.folder = model_folder(self.source, "object detector", ["preprocessor_config.json"])
        known = labels_of(self.folder)
        one = len(known) == 1 and not labels
        self.labels = list(known) if one else label_indices(self.source, known, labels)
        self.weights = weight_hashes(self.folder)
        self.device, self.draft = device, draft

    @classmethod
    def of(cls, settings: ScoreSettings) -> list[Area]:
        """Those of text and of faces, where the settings name their detectors."""
        wanted = (("text_area", settings.text_area, False), ("face_area", settings.face_area, True))
        return [
            cls(column, given, largest, settings.device, settings.jpeg_draft)
            for column, given, largest in wanted
            if given is not None
        ]

    def signature(self) -> dict[str, Any]:
        """Hashes of the weights and configs, and which labels count."""
        configs = fingerprint(small_files(self.folder))
        seen = {"longest": LONGEST, "draft": self.draft, "labels": self.labels}
        return {"version": 1, "weights": self.weights, "configs": configs, **seen}

    def hashes(self) -> Mapping[str, str]:
        return self.weights

    def views(self) -> Mapping[str, PictureView]:
        return {self.needs[0]: PictureView(LONGEST, draft=self.draft, whole=True)}

    def load(self) -> Any:
        """(image processor, model on its device)."""
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        try:
            processor = AutoImageProcessor.from_pretrained(self.folder)
            model = AutoModelForObjectDetection.from_pretrained(self.folder, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise ConfigError(
                f"The object detector {self.source} does not load ({words(error)})."
            ) from error
        return processor, model.to(device_of(self.device)).eval().requires_grad_(False)

    def score(self, columns: Mapping[str, Column]) -> Columns:
        pictures, digests = columns[self.needs[0]], columns["pixel_sha256"]
        share, largest = (np.full(len(digests), np.nan, np.float32) for _ in range(2))
        seen = [known is not None for known in digests]
        groups, errors = by_shape(self.model[0], pictures, seen)
        for rows, inputs in groups:
            shapes = [pictures[row].shape[:2] for row in rows]
            boxes = self._found(inputs["pixel_values"], shapes)
            for row, shape, some in zip(rows, shapes, boxes, strict=True):
                share[row], largest[row] = areas(some, shape)
        found = {self.name: share, self.error: pa.array(errors, pa.string())}
        return {**found, self.largest: largest} if self.largest else found

    def _found(
        self, pixels: torch.Tensor, shapes: Sequence[tuple[int, int]]
    ) -> list[list[NDArray[np.float64]]]:
        """Corners (N, 2) in pixels of each box of each picture that has one of the labels."""
        import torch

        processor, model = self.model
        with torch.inference_mode():
            outputs = model(pixel_values=pixels.to(model.device))
            sizes = torch.tensor(shapes, device=model.device)
            found = processor.post_process_object_detection(outputs, target_sizes=sizes)
        named = [
            zip(one["boxes"].cpu().numpy(), one["labels"].tolist(), strict=True) for one in found
        ]
        return [[corners(box) for box, label in some if label in self.labels] for some in named]


def corners(box: NDArray[Any]) -> NDArray[np.float64]:
    """(4, 2) of (left, top, right, bottom); what comes as corners stays."""
    if box.ndim == 2:
        return box.astype(np.float64)
    left, top, right, bottom = box.astype(np.float64)
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def areas(boxes: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> tuple[float, float]:
    """Shares of a picture of (height, width) pixels: of all boxes together, and of the largest.

    A pixel counts where its centre is inside of a box, whatever its angle; what lies beyond the
    picture does not. A box with a corner that is no number is none.
    """
    import cv2

    every, largest = np.zeros(shape, bool), 0
    for box in boxes:
        if not np.isfinite(box).all():
            continue
        low = np.clip(np.ceil(box.min(axis=0) - 0.5), 0, None).astype(np.int64)
        high = np.minimum(np.ceil(box.max(axis=0) - 0.5), shape[::-1]).astype(np.int64)
        if (low >= high).any():
            continue
        x, y = np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1])[:, None] + 0.5
        inside = np.ones((len(y), len(x)), bool)
        hull = cv2.convexHull(box.astype(np.float32))[:, 0].astype(np.float64)
        # All centres inside are on one side of every edge.
        for a, b in zip(hull, np.roll(hull, -1, axis=0), strict=True):
            inside &= (b[0] - a[0]) * (y - a[1]) >= (b[1] - a[1]) * (x - a[0])
        every[low[1] : high[1], low[0] : high[0]] |= inside
        largest = max(largest, int(inside.sum()))
    return float(every.mean()), largest / every.size
