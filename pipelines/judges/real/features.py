"""What pictures are compared by: features of Inception, CLIP or DINO, (N, D) float32.

    inception   FID's network; see pipelines.judges.real.inception
    clip        any model of open_clip, `MODEL@PRETRAINED` or one that brings its weights; its
                embedding, of unit length. CMMD's own is ViT-L-14-336-quickgelu@openai
    dino        DINOv2 or DINOv3, a folder or hf-hub:ORG/NAME of timm (its config.json names an
                architecture) or of transformers (a model_type); the class token behind the last
                norm, at 224 px, as dgm-eval takes it (FD-DINOv2's own: DINOv2 ViT-L/14)

Cost: a forward a picture, and nothing else of a judge costs as much.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import sha256_file
from curate.base.settings import device_of
from curate.base.weight_download import HUB, hub_folder
from curate.base.weights import SAFE_SUFFIX, weight_hashes
from curate.pictures.decode import PictureView, model_view
from curate.scoring.scorers.clip import Clip, ClipModel
from pipelines.judges.real.inception import (
    WIDTH,
    clean_resize,
    find_weights,
    load_inception,
    normalised,
)
from pipelines.judges.real.settings import RealOptions

if TYPE_CHECKING:
    import torch

_LOCAL = "local-dir:"
_DINO_VIEW = PictureView(224, squash=True)
_DINO_MEAN, _DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 64


class FeatureModel(ABC):
    """Pictures in, features out.

    Attributes:
        width: D.
        mark: what the features hang on: hashes of weights, and how pictures are prepared.
        limits: sentences on what its features do not stand for.
    """

    width: int
    mark: Mapping[str, Any]
    limits: tuple[str, ...] = ()

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, R, R, 3) uint8 -> (N, D) float32, in batches."""
        starts = range(0, len(pictures), _BATCH)
        parts = [self.batch(pictures[start : start + _BATCH]) for start in starts]
        return np.concatenate(parts) if parts else np.empty((0, self.width), np.float32)

    @abstractmethod
    def batch(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same of a few pictures."""


class Inception(FeatureModel):
    """D = 2,048 means before the classifier."""

    width = WIDTH

    def __init__(self, options: RealOptions, device: str) -> None:
        import torch

        path = find_weights(options.inception or "", options.allow_pickle)
        self.mark = {"inception": sha256_file(path), "resize": "clean"}
        self.device = torch.device(device_of(device))
        model, self.original = load_inception(path)
        self.model = model.to(self.device)
        if not self.original:
            self.limits = (
                "Features are of torchvision's own Inception: distances compare the arms here and "
                "no published FID.",
            )

    def batch(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        pixels = np.stack([clean_resize(picture) for picture in pictures])
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self.device)
            return np.asarray(self.model(normalised(batch, self.original)).cpu().numpy())


class ClipFeatures(FeatureModel):
    """CLIP's embedding of the picture."""

    def __init__(self, options: RealOptions, device: str) -> None:
        source = options.clip or ""
        whole = source.startswith((HUB, _LOCAL))  # these bring their own weights
        model, _, pretrained = (source, "", "") if whole else source.rpartition("@")
        scorer = Clip(model, pretrained or None, device=device, allow_pickle=options.allow_pickle)
        self.mark = scorer.signature()
        self.model = ClipModel(scorer)
        self.width = self.model.width

    def batch(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.model.embed_pictures(pictures)


class Dino(FeatureModel):
    """The class token of DINOv2 or DINOv3."""

    def __init__(self, options: RealOptions, device: str) -> None:
        import torch

        source = options.dino or ""
        folder = _folder(source)
        config = _config(folder)
        self.mark = {"config": config, "dino": weight_hashes(folder)}
        self.device = torch.device(device_of(device))
        load = _of_timm if "architecture" in config else _of_transformers
        try:
            model, self._read = load(folder)
        except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise ConfigError(f"The DINO model {source} does not load ({words[0]}).") from error
        self.model = model.requires_grad_(False).float().eval().to(self.device)
        self.width = self.batch(np.zeros((1, 224, 224, 3), np.uint8)).shape[1]

    def batch(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        seen = np.stack([model_view(picture, _DINO_VIEW) for picture in pictures])
        with torch.inference_mode():
            batch = torch.from_numpy(seen).to(self.device).permute(0, 3, 1, 2).float() / 255
            mean, std = (
                batch.new_tensor(values).reshape(1, 3, 1, 1) for values in (_DINO_MEAN, _DINO_STD)
            )
            return np.asarray(self._read(self.model((batch - mean) / std)).cpu().numpy())


MODELS: Mapping[str, Callable[[RealOptions, str], FeatureModel]] = {
    "inception": Inception,
    "clip": ClipFeatures,
    "dino": Dino,
}


def _folder(source: str) -> Path:
    if source.startswith(HUB):
        return hub_folder(source, ["config.json", f"model{SAFE_SUFFIX}"])
    return Path(source.removeprefix(_LOCAL))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} holds no readable config.json of a DINO model.") from error
    if not isinstance(config, dict) or not {"architecture", "model_type"} & config.keys():
        raise ConfigError(f"{folder}/config.json is neither timm's nor transformers'.")
    return config


Read = Callable[[Any], "torch.Tensor"]


def _of_timm(folder: Path) -> tuple[torch.nn.Module, Read]:
    import timm

    model = timm.create_model(
        f"{_LOCAL}{folder}", pretrained=True, num_classes=0, global_pool="token", img_size=224
    )
    return model, lambda features: features


def _of_transformers(folder: Path) -> tuple[torch.nn.Module, Read]:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, use_safetensors=True)
    return model, lambda output: output.pooler_output
