"""LAION's watermark detector."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from curate.base.errors import ConfigError
from curate.base.files import atomic_path, sha256_file
from curate.base.settings import device_of
from curate.base.weight_download import HUB, converted, keep_safetensors, split_hash
from curate.base.weights import SAFE_SUFFIX, load_state_dict
from curate.pictures.decode import PictureView
from curate.scoring.scorers.classifier import softmax_of
from curate.scoring.scorers.published import PUBLISHED
from curate.scoring.scorers.scorer import VIEW_PREFIX, Column, Columns, Scorer

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
