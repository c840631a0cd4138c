"""Detectors of transformers behind one call: a picture and class names in, detections out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.settings import device_of
from pipelines.judges.detection.rules import Detections

_OWL = ("owlvit", "owlv2")
_DINO = ("grounding-dino", "mm-grounding-dino")
_MASKS = ("mask2former", "maskformer")
# GenEval's names of three COCO classes.
_RENAMED = {
    "mouse": "computer mouse",
    "remote": "tv remote",
    "keyboard": "computer keyboard",
}


class Detector(ABC):
    """A model on its device."""

    def __init__(self, folder: Path, model: str, processor: str, device: str) -> None:
        """Load it, safetensors only.

        Args:
            model, processor: names of transformers' Auto classes.

        Raises:
            ConfigError: it does not load.
        """
        import transformers

        self.device = torch.device(device_of(device))
        try:
            self.processor = getattr(transformers, processor).from_pretrained(
                folder, trust_remote_code=False
            )
            self.model = getattr(transformers, model).from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
            said = str(error).strip().splitlines()[0]
            raise ConfigError(f"{folder} does not load as a detector ({said}).") from error
        self.model.eval().to(self.device)

    @torch.inference_mode()
    def detect(self, picture: Image.Image, classes: Sequence[str], least: float) -> Detections:
        """Objects of `classes` with a score of `least` or more."""
        found = self._detect(picture, list(classes), least)
        width, height = picture.size
        found.boxes[:, 0::2] = found.boxes[:, 0::2].clip(0, width)
        found.boxes[:, 1::2] = found.boxes[:, 1::2].clip(0, height)
        return found

    @abstractmethod
    def _detect(self, picture: Image.Image, classes: list[str], least: float) -> Detections: ...

    def _run(self, picture: Image.Image, **texts: Any) -> tuple[Any, Any]:
        inputs = self.processor(images=picture, return_tensors="pt", **texts).to(self.device)
        return self.model(**inputs), inputs


class OwlDetector(Detector):
    """OWL-ViT and OWLv2: each box is given to the class name that it fits best."""

    def _detect(self, picture: Image.Image, classes: list[str], least: float) -> Detections:
        outputs, _ = self._run(picture, text=[[f"a photo of a {name}" for name in classes]])
        (found,) = self.processor.post_process_grounded_object_detection(
            outputs, threshold=least, target_sizes=[picture.size[::-1]]
        )
        return _detections([classes[number] for number in found["labels"].tolist()], found)


class GroundingDetector(Detector):
    """Grounding DINO, asked for one class at a time: its boxes then need no reading of phrases."""

    def _detect(self, picture: Image.Image, classes: list[str], least: float) -> Detections:
        parts = []
        for name in classes:
            outputs, inputs = self._run(picture, text=[[name]])
            (found,) = self.processor.post_process_grounded_object_detection(
                outputs, inputs["input_ids"], threshold=least, target_sizes=[picture.size[::-1]]
            )
            parts.append(_detections([name] * len(found["scores"]), found))
        return Detections(
            [label for part in parts for label in part.labels],
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.boxes for part in parts]),
        )


class _FixedClasses(Detector):
    """Knows the classes that it was trained on, usually COCO's."""

    def __init__(self, folder: Path, model: str, processor: str, device: str) -> None:
        super().__init__(folder, model, processor, device)
        names = self.model.config.id2label
        self.names = {number: _RENAMED.get(name, name) for number, name in names.items()}

    def _check(self, classes: list[str]) -> None:
        unknown = [name for name in classes if name not in self.names.values()]
        if unknown:
            raise ConfigError(
                f"The detector knows no {unknown[0]!r}; take one with an open vocabulary, such as "
                f"google/owlv2-base-patch16-ensemble."
            )


class BoxDetector(_FixedClasses):
    """DETR and its relatives."""

    def _detect(self, picture: Image.Image, classes: list[str], least: float) -> Detections:
        self._check(classes)
        (found,) = self.processor.post_process_object_detection(
            self._run(picture)[0], threshold=least, target_sizes=[picture.size[::-1]]
        )
        return _detections([self.names[number] for number in found["labels"].tolist()], found)


class MaskDetector(_FixedClasses):
    """Mask2Former, as GenEval runs it: boxes lie around masks, and colours see the masks alone."""

    def _detect(self, picture: Image.Image, classes: list[str], least: float) -> Detections:
        from torchvision.ops import masks_to_boxes

        self._check(classes)
        (found,) = self.processor.post_process_instance_segmentation(
            self._run(picture)[0],
            threshold=least,
            target_sizes=[picture.size[::-1]],
            return_binary_maps=True,
        )
        segments = found["segments_info"]
        if not segments:
            return Detections([], np.empty(0), np.empty((0, 4)))
        masks = found["segmentation"].bool().cpu()
        boxes = masks_to_boxes(masks).double()
        boxes[:, 2:] += 1  # its right and lower ends are the last pixels
        return Detections(
            [self.names[segment["label_id"]] for segment in segments],
            np.array([segment["score"] for segment in segments]),
            boxes.numpy(),
            masks.numpy(),
        )


def _detections(labels: list[str], found: Any) -> Detections:
    scores, boxes = (found[name].double().cpu().numpy() for name in ("scores", "boxes"))
    return Detections(labels, scores, boxes)


def open_detector(folder: Path, device: str) -> Detector:
    """The detector in a folder, by its architecture.

    Raises:
        ConfigError: transformers has no detector of that kind, or it does not load.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES as BOXES,
    )

    try:
        kind = AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} holds no model of transformers ({error}).") from error
    if kind in _OWL + _DINO:
        words = OwlDetector if kind in _OWL else GroundingDetector
        return words(folder, "AutoModelForZeroShotObjectDetection", "AutoProcessor", device)
    if kind in _MASKS:
        model = "AutoModelForUniversalSegmentation"
        return MaskDetector(folder, model, "AutoImageProcessor", device)
    if kind in BOXES:
        return BoxDetector(folder, "AutoModelForObjectDetection", "AutoImageProcessor", device)
    raise ConfigError(
        f"{folder} is a {kind}, which is no detector known here: OWL-ViT, OWLv2, Grounding DINO, "
        f"Mask2Former, or any that transformers has for object detection."
    )
