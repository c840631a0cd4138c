"""Image classifiers: any of transformers', for NSFW or watermarks, and LAION's watermark detector.

A score is the probability of the labels that mean it: the sum of their softmax. Each classifier has
a view of the picture of its own (curate.pictures.decode), from the same decode as all else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import atomic_path, fingerprint, read_json, sha256_file
from curate.base.settings import device_of, nearest
from curate.base.weight_download import HUB, converted, hub_folder, keep_safetensors, split_hash
from curate.base.weights import SAFE_SUFFIX, load_state_dict, weight_hashes
from curate.pictures.decode import PictureView
from curate.scoring.scorers.published import PUBLISHED
from curate.scoring.scorers.scorer import VIEW_PREFIX, Column, Columns, Scorer

if TYPE_CHECKING:
    import torch


_RESAMPLE = {2: "bilinear", 3: "bicubic"}


class ImageClassifier(Scorer):
    """A classifier of transformers (AutoModelForImageClassification).

    Args:
        column: the score's name; 0 to 1.
        source: hf-hub:ORG/NAME, hf-hub:ORG/NAME@REVISION, or a folder as save_pretrained writes it,
            with weights in safetensors.
        labels: the labels whose probabilities are added up, by name, in any case.
        device, draft: as for Clip.

    Raises:
        ConfigError: no such model, a label that it does not have, or preparation of pictures that
            cannot be reproduced (anything but a square of bicubic or bilinear resizing).
    """

    def __init__(
        self,
        column: str,
        source: str,
        labels: Sequence[str],
        device: str = "auto",
        draft: bool = True,
    ) -> None:
        self.name, self.adds = column, (column,)
        self.needs = (f"{VIEW_PREFIX}{column}",)
        self.source, self.device = source, device
        folder = classifier_folder(source)
        self._hashes = weight_hashes(folder)
        config = read_json(folder / "config.json")
        self.indices = _label_indices(source, config, labels)
        preparation = read_json(folder / "preprocessor_config.json")
        self._view, self._crop, self._mean, self._std = _preparation(source, preparation, draft)
        self._signature = {
            "version": 1,
            "weights": self._hashes,
            "config": fingerprint([config, preparation]),
            "labels": self.indices,
            "draft": draft,
        }
        self._model: Any = None

    def signature(self) -> dict[str, Any]:
        """Hashes of the weights, configs, and which labels count."""
        return self._signature

    def hashes(self) -> Mapping[str, str]:
        return self._hashes

    def views(self) -> Mapping[str, PictureView]:
        return {self.needs[0]: self._view}

    def open(self) -> None:
        if self._model is not None:
            return
        from transformers import AutoModelForImageClassification

        folder = str(classifier_folder(self.source))
        try:
            model = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            first = str(error).strip().splitlines()
            raise ConfigError(
                f"The image classifier {self.source} does not load ({first[0] if first else ''})."
            ) from error
        self._model = model.to(device_of(self.device)).eval().requires_grad_(False)

    def score(self, columns: Mapping[str, Column]) -> Columns:
        self.open()
        pictures = columns[self.needs[0]]
        if self._crop < pictures.shape[1]:
            start = round((pictures.shape[1] - self._crop) / 2)
            stop = start + self._crop
            pictures = np.ascontiguousarray(pictures[:, start:stop, start:stop])

        def logits(batch: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self._model(pixel_values=batch).logits
            return answer

        device = next(self._model.parameters()).device
        shares = softmax_of(logits, pictures, self._mean, self._std, device)
        return {self.name: shares[:, self.indices].sum(axis=1)}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}


def classifier_folder(source: str) -> Path:
    """The classifier's folder: config.json, preprocessor_config.json and weights in safetensors."""
    if source.startswith(HUB):
        folder = hub_folder(source, ["config.json", "preprocessor_config.json", f"*{SAFE_SUFFIX}"])
    else:
        folder = Path(source)
    for name in ("config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"{source} is no image classifier of transformers: no {name}.")
    if not list(folder.glob(f"*{SAFE_SUFFIX}")):
        raise ConfigError(
            f"{source} has no weights in {SAFE_SUFFIX}; a pickle is never loaded, so convert them."
        )
    return folder


def _label_indices(source: str, config: Mapping[str, Any], labels: Sequence[str]) -> list[int]:
    known = {str(name).lower(): int(index) for index, name in config.get("id2label", {}).items()}
    for label in labels:
        if label.lower() not in known:
            raise ConfigError(f"{source} has no label {label!r}; {nearest(label, list(known))}")
    if not labels:
        raise ConfigError(f"Say which labels of {source} count: {', '.join(known)}.")
    return sorted(known[label.lower()] for label in labels)


def _preparation(
    source: str, config: Mapping[str, Any], draft: bool
) -> tuple[PictureView, int, Sequence[float], Sequence[float]]:
    """How pictures are resized, the side of the centre crop, mean and deviation (0 to 1)."""
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
        raise ConfigError(
            f"{source} prepares its pictures in a way that is not supported here (size {size}, "
            f"resample {config.get('resample')}); use one with a square, bilinear or bicubic."
        )
    plain = config.get("do_normalize", True) is False
    mean = (0.0,) * 3 if plain else tuple(config.get("image_mean") or (0.5,) * 3)
    std = (1.0,) * 3 if plain else tuple(config.get("image_std") or (0.5,) * 3)
    return PictureView(side, squash, resample, draft), crop, mean, std


def softmax_of(
    model: Any,
    pictures: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
) -> NDArray[np.float32]:
    """(B, S, S, 3) uint8 -> (B, classes), each row adds up to 1."""
    import torch

    def channels(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, device=device, dtype=torch.float32).reshape(1, 3, 1, 1) * 255

    with torch.inference_mode():
        batch = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2)
        shares = torch.softmax(model((batch - channels(mean)) / channels(std)).float(), dim=-1)
        return np.asarray(shares.cpu().numpy())


SIDE = 256
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class LaionWatermark(Scorer):
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
        self.name, self.adds, self.device = column, (column,), device
        self.needs = (f"{VIEW_PREFIX}{column}",)
        self.path = find_watermark(source, allow_pickle)
        self.sha256 = sha256_file(self.path)
        self._view = PictureView(SIDE, True, "bilinear", draft)
        self._model: Any = None

    def signature(self) -> dict[str, Any]:
        """The weights' hash and how pictures are decoded."""
        return {"version": 1, "sha256": self.sha256, "draft": self._view.draft}

    def hashes(self) -> Mapping[str, str]:
        return {self.path.name: self.sha256}

    def views(self) -> Mapping[str, PictureView]:
        return {self.needs[0]: self._view}

    def open(self) -> None:
        if self._model is not None:
            return
        model = watermark_network()
        try:
            model.load_state_dict(load_state_dict(self.path))
        except RuntimeError as error:
            raise ConfigError(
                f"{self.path} is not LAION's watermark detector: its tensors do not fit."
            ) from error
        self._model = model.to(device_of(self.device)).eval().requires_grad_(False)

    def score(self, columns: Mapping[str, Column]) -> Columns:
        self.open()
        device = next(self._model.parameters()).device
        shares = softmax_of(
            self._model, columns[self.needs[0]], _IMAGENET_MEAN, _IMAGENET_STD, device
        )
        return {self.name: shares[:, 0]}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}


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
        if sha256 is None:
            raise ConfigError(
                f"The sha256 of {name} ({entry.url}) is not known here; give it as "
                f"{name}#sha256=HEX, or download the file and give its path."
            )
        name = entry.url
    path = Path(name)
    if path.suffix == SAFE_SUFFIX and not name.startswith((HUB, "http://", "https://")):
        if not path.is_file():
            raise ConfigError(f"The watermark detector {name} does not exist.")
        return path
    convert = keep_safetensors if path.suffix == SAFE_SUFFIX else _convert_plain
    return converted(name, convert, mark="plain", sha256=sha256, allow_pickle=allow_pickle)


def is_laion_watermark(source: str) -> bool:
    """Whether `source` means LAION's network and not a classifier of transformers."""
    name = split_hash(source)[0]
    return name in PUBLISHED or Path(name).suffix in (SAFE_SUFFIX, ".pt", ".pth", ".bin", ".ckpt")


def _convert_plain(source: Path, target: Path, trusted: bool) -> None:
    from safetensors.torch import save_file

    tensors = load_state_dict(source, allow_pickle=trusted)
    with atomic_path(target) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
