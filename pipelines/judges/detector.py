"""Did a detector find what a GenEval record asks for? Rules: pipelines.judges.detection.rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from curate.base.errors import ConfigError
from curate.base.settings import Settings
from pipelines.judges.asked import record
from pipelines.judges.detection.rules import COLOURS, TAGS, Detections, Rules, is_right
from pipelines.judges.models import found
from pipelines.judges.protocol import Judge, Pictures

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.scoring.scorers.clip import ClipModel

_TEMPLATES = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")
_BACKGROUND = np.uint8(0x99)  # GenEval's #999 where a mask leaves the picture out


class DetectorOptions(Settings):
    """Which detector, which CLIP names colours, and GenEval's thresholds."""

    model: str = Field(
        "facebook/mask2former-swin-small-coco-instance",
        description="Hub id or folder: Mask2Former, DETR and others with COCO's classes, or OWLv2 "
        "and Grounding DINO for any class. The default is GenEval's own detector.",
    )
    revision: str = Field("main", description="Hub branch, tag or commit of the detector.")
    threshold: float = Field(0.3, gt=0, lt=1, description="Least score of an object.")
    counting_threshold: float = Field(0.9, gt=0, lt=1, description="The same where it counts.")
    most_overlap: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Objects of a class that overlap more than this (IoU) count once; 1: all do.",
    )
    colour_model: str = Field(
        "ViT-L-14-quickgelu", description="CLIP model of open_clip that names colours."
    )
    colour_pretrained: str | None = Field("openai", description="Tag or file of its weights.")


class DetectorJudge(Judge):
    """1 where the picture shows what its GenEval record asks for, else 0."""

    Options = DetectorOptions
    options: DetectorOptions
    metrics = ("geneval",)
    limits = (
        "GenEval's rules see COCO's objects, counts to four, ten colours and four places; style, "
        "and everything that a long prompt says beside them, is not judged.",
        "Its thresholds (.3, and .9 for counts) were chosen for Mask2Former; scores of another "
        "detector stand on another scale, so results compare under one detector only.",
        "A detector that was trained on photographs misses drawn and stylised objects.",
    )

    def __init__(self, options: DetectorOptions, device: str) -> None:
        from curate.scoring.scorers.clip import Clip
        from pipelines.judges.detection.detectors import open_detector

        super().__init__(options, device)
        folder, self._digest = found("detector", options.model, options.revision)
        self.detector = open_detector(folder, device)
        self._clip = Clip(options.colour_model, options.colour_pretrained, device=device)
        self._colours = Colours(self._clip.model)
        self._rules = Rules(options.threshold, options.counting_threshold, options.most_overlap)

    def identity(self) -> dict[str, Any]:
        return {"detector": self._digest, "colours": self._clip.signature()}

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        wanted = [record(intent) for intent in asked.column("intent").to_pylist()]
        return {
            "geneval": np.array(
                [self._one(*pair) for pair in zip(pictures, wanted, strict=True)], np.float64
            )
        }

    def _one(self, picture: NDArray[np.uint8], wanted: dict[str, Any] | None) -> float:
        if wanted is None or wanted.get("tag") not in TAGS:
            return np.nan
        classes = classes_of(wanted)
        least = min(self._rules.threshold, self._rules.counting_threshold)
        seen = self.detector.detect(Image.fromarray(picture), classes, least)

        def colours(numbers: Sequence[int], name: str) -> list[str]:
            return self._colours.of(picture, seen, numbers, name)

        return float(is_right(wanted, seen, colours, self._rules))


def classes_of(wanted: dict[str, Any]) -> list[str]:
    """Every class that a GenEval record names, once.

    Raises:
        ConfigError: a clause lacks its class or count, or places itself by a later one.
    """
    try:
        clauses = [*wanted["include"], *wanted.get("exclude", [])]
        whole = all(int(clause["count"]) > 0 for clause in clauses)
        places = [(n, clause.get("position", ["", -1])) for n, clause in enumerate(clauses)]
        whole &= all(int(target) < number for number, (_, target) in places)
        classes = list(dict.fromkeys(str(clause["class"]) for clause in clauses))
    except (KeyError, TypeError, ValueError, AttributeError):
        whole, classes = False, []
    if not whole:
        raise ConfigError(f"A GenEval record is not as it should be: {wanted}.")
    return classes


class Colours:
    """Names the colour of a detected object, by CLIP on its crop (GenEval's templates)."""

    def __init__(self, clip: ClipModel) -> None:
        self._clip = clip
        self._classifiers: dict[str, NDArray[np.float32]] = {}

    def of(
        self, picture: NDArray[np.uint8], seen: Detections, numbers: Sequence[int], name: str
    ) -> list[str]:
        """The colour of each of some detections of class `name`."""
        from curate.pictures.decode import model_view

        crops = [model_view(crop_of(picture, seen, number), self._clip.view) for number in numbers]
        likeness = self._clip.embed_pictures(np.stack(crops)) @ self._classifier(name)
        return [COLOURS[number] for number in likeness.argmax(1)]

    def _classifier(self, name: str) -> NDArray[np.float32]:
        """(D, 10): the mean direction of each colour's sentences."""
        if name not in self._classifiers:
            texts = [form.format(colour, name) for colour in COLOURS for form in _TEMPLATES]
            vectors = self._clip.embed_texts(texts).reshape(len(COLOURS), len(_TEMPLATES), -1)
            means = vectors.mean(axis=1)
            self._classifiers[name] = (means / np.linalg.norm(means, axis=1, keepdims=True)).T
        return self._classifiers[name]


def crop_of(picture: NDArray[np.uint8], seen: Detections, number: int) -> NDArray[np.uint8]:
    """The detection's box, grey where its mask is not; at least one pixel."""
    if seen.masks is not None:
        picture = np.where(seen.masks[number][..., None], picture, _BACKGROUND)
    height, width = picture.shape[:2]
    left, top, right, bottom = (round(float(end)) for end in seen.boxes[number])
    left, top = min(left, width - 1), min(top, height - 1)
    return picture[top : max(bottom, top + 1), left : max(right, left + 1)]
