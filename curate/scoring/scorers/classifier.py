"""Image classifiers: any of transformers', and LAION's watermark detector.

A score is the probability of the labels that mean it. Each classifier has
a view of the picture of its own (curate.pictures.decode), from the same decode as all else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.files import atomic_path, fingerprint, sha256_file
from curate.base.settings import device_of
from curate.base.weight_download import HUB, converted, keep_safetensors, split_hash
from curate.base.weights import SAFE_SUFFIX, load_state_dict, weight_hashes
from curate.pictures.decode import PictureView
from curate.scoring.models.source import (
    label_indices,
    labels_of,
    model_folder,
    numbers_of,
    small_files,
    split_labels,
)
from curate.scoring.scorers.published import PUBLISHED
from curate.scoring.scorers.scorer import (
    VIEW_PREFIX,
    Column,
    Columns,
    ModelScorer,
    check_column,
)

if TYPE_CHECKING:
    import torch

    from curate.scoring.settings import ScoreSettings


_RESAMPLE = {2: "bilinear", 3: "bicubic"}
# Steps of an image processor that are its own: reversed channels, a shifted range, a second
# normalisation (EfficientNet), padding.
_MORE = ("do_flip_channel_order", "rescale_offset", "include_top", "do_pad")
_WHOLE = 1024
"""Longest side in pixels of a picture that is given to a model's own image processor."""


class _Classifier(ModelScorer[Any]):
    """A network with a view of its own; the score is its probability of some of its classes."""

    view: PictureView
    crop: int  # pixels of the centre square that the network sees
    indices: list[int]  # of the classes that count
    normalisation: tuple[Sequence[float], Sequence[float]]  # mean and deviation, 0 to 1
    weights: Mapping[str, str]
    several = False  # whether a picture may have several labels, each with a sigmoid of its own

    def __init__(self, column: str, source: str, device: str) -> None:
        self.name, self.adds = column, (column,)
        self.needs = (f"{VIEW_PREFIX}{column}",)
        self.source, self.device = source, device

    def hashes(self) -> Mapping[str, str]:
        return self.weights

    def views(self) -> Mapping[str, PictureView]:
        return {self.needs[0]: self.view}

    def load(self) -> Any:
        return self.network().to(device_of(self.device)).eval().requires_grad_(False)

    @abstractmethod
    def network(self) -> Any:
        """The network with its weights, a torch module."""

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) normalised pictures -> (B, classes)."""
        answer: torch.Tensor = self.model(batch)
        return answer

    def score(self, columns: Mapping[str, Column]) -> Columns:
        import torch

        pictures = columns[self.needs[0]]
        if not len(pictures):
            return {self.name: np.zeros(0, np.float32)}
        device = next(self.model.parameters()).device
        with torch.inference_mode():
            logits = self.logits(self.prepared(pictures, device)).float()
            if self.several:
                return {self.name: np.asarray(logits.sigmoid()[:, self.indices].amax(1).cpu())}
            shares = np.asarray(torch.softmax(logits, dim=-1).cpu().numpy())
        return {self.name: shares[:, self.indices].sum(axis=1)}

    def prepared(self, pictures: Any, device: torch.device) -> torch.Tensor:
        """A batch of the view -> (B, 3, S, S), cropped and normalised."""
        import torch

        if self.crop < pictures.shape[1]:
            start = round((pictures.shape[1] - self.crop) / 2)
            stop = start + self.crop
            pictures = np.ascontiguousarray(pictures[:, start:stop, start:stop])
        mean, deviation = (
            torch.tensor(values, device=device, dtype=torch.float32).reshape(1, 3, 1, 1) * 255
            for values in self.normalisation
        )
        batch = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
        return (batch - mean) / deviation


class ImageClassifier(_Classifier):
    """Any classifier of transformers (AutoModelForImageClassification).

    The score is the sum of the softmax of the labels that count; of a model with several labels a
    picture (`problem_type` multi_label_classification) the greatest of their sigmoids.

    Where the model resizes to a square, bicubic or bilinear, and takes its centre, it shares the
    decode's own resizing; every other preparation is the model's own image processor over the
    whole picture.

    Args:
        column: the score's name; 0 to 1.
        source: hf-hub:ORG/NAME, hf-hub:ORG/NAME@REVISION, or a folder as save_pretrained writes it,
            with weights in safetensors.
        labels: the labels that count, by name, in any case; a text is several joined by +.
        device, draft: as for Clip.

    Raises:
        ConfigError: no such model, or a label that it does not have.
    """

    def __init__(
        self,
        column: str,
        source: str,
        labels: str | Sequence[str],
        device: str = "auto",
        draft: bool = True,
    ) -> None:
        super().__init__(column, source, device)
        self.folder = folder = model_folder(source, "image classifier")
        self.weights = weight_hashes(folder)
        configs = small_files(folder)
        config, preparation = configs["config.json"], configs.get("preprocessor_config.json", {})
        if not preparation and "pretrained_cfg" not in config:  # timm's models keep it in the other
            raise ConfigError(f"{source} is no image classifier: no preprocessor_config.json.")
        known = labels_of(folder)
        if isinstance(labels, str):
            self.indices = label_indices(source, known, labels)
        else:
            self.indices = numbers_of(source, known, labels)
        self.several = config.get("problem_type") == "multi_label_classification"
        if len(known) < 2 and not self.several:
            raise ConfigError(
                f"{source} has one label alone, whose probability is always 1; it is no classifier."
            )
        self._signature = {
            "version": 1,
            "weights": self.weights,
            "config": fingerprint([config, preparation]),
            "labels": self.indices,
            "draft": draft,
        }
        plain = _plain(preparation, draft) if preparation else None
        if plain is not None:
            self.view, self.crop, *normalisation = plain
            self.normalisation = (normalisation[0], normalisation[1])
        else:
            self.view = PictureView(_WHOLE, draft=draft, whole=True)
            self._signature["whole"] = _WHOLE
        if self.several:
            self._signature["several"] = True

    @classmethod
    def of(cls, settings: ScoreSettings) -> list[ImageClassifier]:
        """Those that are named, that for NSFW, and that for watermarks where it is not LAION's."""
        wanted: list[tuple[str, str, str | Sequence[str]]] = []
        nsfw, watermark = settings.nsfw_classifier, settings.watermark_model
        if nsfw is not None:
            wanted.append(("nsfw_classifier", nsfw, settings.nsfw_labels))
        if watermark is not None and not _is_laion_watermark(watermark):
            wanted.append(("watermark", watermark, settings.watermark_labels))
        for column, given in settings.classifier.items():
            check_column(column)
            wanted.append((column, *split_labels(given)))
        return [cls(*one, settings.device, settings.jpeg_draft) for one in wanted]

    def signature(self) -> dict[str, Any]:
        """Hashes of the weights, configs, and which labels count."""
        return self._signature

    def network(self) -> Any:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        folder = str(self.folder)
        try:
            if self.view.whole:
                self._processor = AutoImageProcessor.from_pretrained(folder)
            return AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            first = str(error).strip().splitlines()
            raise ConfigError(
                f"The image classifier {self.source} does not load ({first[0] if first else ''})."
            ) from error

    def prepared(self, pictures: Any, device: torch.device) -> torch.Tensor:
        if not self.view.whole:
            return super().prepared(pictures, device)
        images = [Image.fromarray(picture) for picture in pictures]
        values: torch.Tensor = self._processor(images=images, return_tensors="pt").pixel_values
        return values.to(device)

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.model(pixel_values=batch).logits
        return answer

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_processor": None}


def _plain(
    config: Mapping[str, Any], draft: bool
) -> tuple[PictureView, int, Sequence[float], Sequence[float]] | None:
    """How pictures are resized, the side of the centre crop, mean and deviation (0 to 1).

    None where it takes more than a square, bicubic or bilinear, its centre and that.
    """
    size = config.get("size", 224)
    size = {"height": size, "width": size} if isinstance(size, int) else dict(size)
    squash = "shortest_edge" not in size
    side = int(size.get("shortest_edge", size.get("height", 0)) or 0)
    crop = config.get("crop_size", side)
    crop = int(crop["height"] if isinstance(crop, Mapping) else crop)
    if not config.get("do_center_crop", False):
        crop = side
    if not squash and "crop_pct" in config and side < 384:  # ConvNeXT resizes first, then crops
        crop, side = side, int(side / (config["crop_pct"] or 224 / 256))
    resample = _RESAMPLE.get(config.get("resample", 2))
    square = squash is False or size.get("height") == size.get("width")
    if not (square and side and crop <= side and resample and config.get("do_resize", True)):
        return None
    if any(config.get(name) for name in _MORE) or not config.get("do_rescale", True):
        return None
    if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        return None
    plain = config.get("do_normalize", True) is False
    mean = (0.0,) * 3 if plain else tuple(config.get("image_mean") or (0.5,) * 3)
    std = (1.0,) * 3 if plain else tuple(config.get("image_std") or (0.5,) * 3)
    return PictureView(side, squash, resample, draft), crop, mean, std


SIDE = 256


class LaionWatermark(_Classifier):
    """LAION-5B's watermark detector: column `watermark`, the probability of a watermark, 0 to 1.

    EfficientNet-B3 of timm with the classifier 1536-625-ReLU-Dropout-256-ReLU-2, on the picture
    squashed to 256 x 256 (bilinear); index 0 means a watermark (see their repository,
    LAION-AI/LAION-5B-WatermarkDetection). LAION called 0.8 and above watermarked; Stable
    Diffusion 1 was trained below 0.5.

    Args:
        source: laion-watermark#sha256=HEX, a URL with its hash, a hub file, or a file.
        allow_pickle: see curate.base.weight_download.
    """

    def __init__(
        self,
        source: str,
        device: str = "auto",
        draft: bool = True,
        allow_pickle: Collection[str] = (),
        column: str = "watermark",
    ) -> None:
        super().__init__(column, source, device)
        self.path = find_watermark(source, allow_pickle)
        self.sha256 = sha256_file(self.path)
        self.weights = {self.path.name: self.sha256}
        self.view, self.crop, self.indices = PictureView(SIDE, True, "bilinear", draft), SIDE, [0]
        self.normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # ImageNet's

    @classmethod
    def of(cls, settings: ScoreSettings) -> list[LaionWatermark]:
        """The detector, where the settings name it."""
        source = settings.watermark_model
        if source is None or not _is_laion_watermark(source):
            return []
        return [cls(source, settings.device, settings.jpeg_draft, settings.allow_pickle)]

    def signature(self) -> dict[str, Any]:
        """The weights' hash and how pictures are decoded."""
        return {"version": 1, "sha256": self.sha256, "draft": self.view.draft}

    def network(self) -> Any:
        model = watermark_network()
        try:
            model.load_state_dict(load_state_dict(self.path))
        except RuntimeError as error:
            raise ConfigError(
                f"{self.path} is not LAION's watermark detector: its tensors do not fit."
            ) from error
        return model


def watermark_network() -> Any:
    """LAION's watermark detector with random weights."""
    import timm
    from torch import nn

    model = timm.create_model("efficientnet_b3", pretrained=False, num_classes=2)
    model.classifier = nn.Sequential(
        nn.Linear(1536, 625),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(625, 256),
        nn.ReLU(),
        nn.Linear(256, 2),
    )
    return model


def find_watermark(source: str, allow_pickle: Collection[str] = ()) -> Path:
    """LAION's detector as a local safetensors file.

    Raises:
        ConfigError: see curate.base.weight_download.
    """
    name, sha256 = split_hash(source)
    entry = PUBLISHED.get(name)
    if entry is not None:
        if entry.kind != "watermark":
            raise ConfigError(f"{name} is a head on an embedding and finds no watermarks.")
        sha256 = entry.hash_or(sha256, name)
        name = entry.url
    path = Path(name)
    if path.suffix == SAFE_SUFFIX and not name.startswith((HUB, "http://", "https://")):
        if not path.is_file():
            raise ConfigError(f"The watermark detector {name} does not exist.")
        return path
    convert = keep_safetensors if path.suffix == SAFE_SUFFIX else _convert_plain
    return converted(name, convert, mark="plain", sha256=sha256, allow_pickle=allow_pickle)


def _is_laion_watermark(source: str) -> bool:
    """Whether `source` means LAION's network and not a classifier of transformers."""
    name = split_hash(source)[0]
    return name in PUBLISHED or Path(name).suffix in (SAFE_SUFFIX, ".pt", ".pth", ".bin", ".ckpt")


def _convert_plain(source: Path, target: Path, trusted: bool) -> None:
    from safetensors.torch import save_file

    tensors = load_state_dict(source, allow_pickle=trusted)
    with atomic_path(target) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
