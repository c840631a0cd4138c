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
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import atomic_path, fingerprint, sha256_file
from curate.base.settings import device_of
from curate.base.weight_download import HUB, converted, keep_safetensors, split_hash
from curate.base.weights import SAFE_SUFFIX, load_state_dict, weight_hashes
from curate.pictures.decode import PictureView
from curate.scoring.models.preparation import by_shape, plain_preparation
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
            return {self.name: self.shares(self.logits(self.prepared(pictures, device)))}

    def shares(self, logits: torch.Tensor) -> NDArray[np.float32]:
        """(B, classes) -> (B,) probabilities of the classes that count."""
        if self.several:
            found = logits.float().sigmoid()[:, self.indices].amax(1)
        else:
            found = logits.float().softmax(-1)[:, self.indices].sum(1)
        return np.asarray(found.cpu().numpy())

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
    whole picture, and `NAME_error` says why one has no score.

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
        plain = plain_preparation(preparation, draft)
        if plain is not None:
            self.view, self.crop, *normalisation = plain
            self.normalisation = (normalisation[0], normalisation[1])
        else:
            self.view = PictureView(_WHOLE, draft=draft, whole=True)
            self._signature["whole"] = _WHOLE
            self.error = f"{column}_error"
            self.adds = (column, self.error)
            self.needs = (*self.needs, "pixel_sha256")
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
                self.processor = AutoImageProcessor.from_pretrained(folder)
            return AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
            first = str(error).strip().splitlines()
            raise ConfigError(
                f"The image classifier {self.source} does not load ({first[0] if first else ''})."
            ) from error

    def score(self, columns: Mapping[str, Column]) -> Columns:
        if not self.view.whole:
            return super().score(columns)
        import torch

        seen = [known is not None for known in columns["pixel_sha256"]]
        groups, errors = by_shape(self.processor, columns[self.needs[0]], seen)
        shares = np.full(len(seen), np.nan, np.float32)
        with torch.inference_mode():
            for rows, inputs in groups:
                given = {name: value.to(self.model.device) for name, value in inputs.items()}
                shares[rows] = self.shares(self.model(**given).logits)
        return {self.name: shares, self.error: pa.array(errors, pa.string())}

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.model(pixel_values=batch).logits
        return answer

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "processor": None}


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
