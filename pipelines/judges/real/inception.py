"""Inception v3 as FID means it: TensorFlow's weights of 2015 in torchvision's modules.

These weights differ from torchvision's own: 1,008 classes, averages that leave out the padding, a
maximum in place of the average in the last block, pixels as (x - 128) / 128. Features are the 2,048
means before the classifier. Published FIDs are of these weights alone; torchvision's (1,000
classes) run as they were trained, and what they give has no counterpart in the literature.

Pictures are resized as clean-fid does it (2104.11222): each channel as floats, Pillow's bicubic
with antialiasing, the whole picture to 299 x 299.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.files import atomic_path
from curate.base.weight_download import converted, split_hash
from curate.base.weights import SAFE_SUFFIX, load_state_dict

if TYPE_CHECKING:
    import torch

PUBLISHED = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
# Beside the eight digits in its name several public repositories write the whole hash.
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NAME = "pt_inception"
SIDE, WIDTH = 299, 2048
_CLASSES = {1008: True, 1000: False}


def find_weights(source: str, allow_pickle: Collection[str] = ()) -> Path:
    """`pt_inception` (FID's own, a pickle), or any source of curate.base.weight_download.

    Raises:
        ConfigError: it is not there, or a pickle that was not named.
    """
    name, sha256 = split_hash(source)
    if name == NAME:
        name, sha256 = PUBLISHED, sha256 or SHA256
        allow_pickle = {*allow_pickle, *([sha256] if NAME in allow_pickle else [])}
    if name.endswith(SAFE_SUFFIX) and Path(name).is_file():
        return Path(name)
    return converted(name, _convert, mark="inception", sha256=sha256, allow_pickle=allow_pickle)


def load_inception(path: Path) -> tuple[torch.nn.Module, bool]:
    """The network without its classifier, and whether its weights are FID's.

    Raises:
        ConfigError: the file holds no Inception v3.
    """
    import torch
    from torchvision.models.inception import Inception3

    state = load_state_dict(path)
    classes = len(state["fc.bias"]) if "fc.bias" in state else 0
    if classes not in _CLASSES:
        raise ConfigError(f"{path} holds no Inception v3 with 1,008 or 1,000 classes.")
    original = _CLASSES[classes]
    blocks = _original_blocks() if original else None
    with torch.device("meta"):
        model = Inception3(classes, aux_logits=False, inception_blocks=blocks, init_weights=False)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("AuxLogits.")}
    try:
        model.load_state_dict(kept, strict=False, assign=True)
        missing = [name for name, value in model.state_dict().items() if value.is_meta]
    except RuntimeError as error:
        raise ConfigError(
            f"{path} holds no Inception v3 ({str(error).splitlines()[-1]})."
        ) from error
    # Counters of batches, which older files lack, count for nothing here.
    lost = [name for name in missing if not name.endswith("num_batches_tracked")]
    if lost or set(kept) - set(model.state_dict()):
        raise ConfigError(f"{path} holds no Inception v3: {(lost or ['names'])[0]} does not fit.")
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(0)
    if original:
        model.Mixed_7c.pool = partial(torch.nn.functional.max_pool2d, **_AROUND)
    model.fc = torch.nn.Identity()
    model.requires_grad_(False)
    return model.float().eval(), original


def clean_resize(picture: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.float32]:
    """(H, W, 3) uint8 -> (3, side, side) float32 in 0..255, unrounded."""
    channels = (Image.fromarray(picture[..., c].astype(np.float32)) for c in range(3))
    resized = [one.resize((side, side), Image.Resampling.BICUBIC) for one in channels]
    return np.stack([np.asarray(one) for one in resized]).clip(0, 255)


def normalised(pixels: torch.Tensor, original: bool) -> torch.Tensor:
    """0..255 as the weights want it."""
    if original:
        return (pixels - 128) / 128
    mean, std = (
        pixels.new_tensor(values).reshape(1, 3, 1, 1)
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (pixels / 255 - mean) / std


_AROUND: dict[str, Any] = {"kernel_size": 3, "stride": 1, "padding": 1}


def _original_blocks() -> list[Any]:
    """torchvision's blocks, whose last branch pools as TensorFlow did."""
    from torch.nn import functional
    from torchvision.models import inception

    average = partial(functional.avg_pool2d, count_include_pad=False, **_AROUND)

    def repooled(block: Any) -> Any:
        class Repooled(block):  # type: ignore[misc]
            pool = staticmethod(average)

            def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
                *branches, _ = super()._forward(x)
                return [*branches, self.branch_pool(self.pool(x))]

        return Repooled

    names = ["BasicConv2d", *"ABCDE", "Aux"]
    plain = {n: getattr(inception, n if n == "BasicConv2d" else f"Inception{n}") for n in names}
    return [repooled(plain[name]) if name in "ACE" else plain[name] for name in names]


def _convert(source: Path, target: Path, allow_pickle: bool) -> None:
    from safetensors.torch import save_file

    state = {name: t.contiguous() for name, t in load_state_dict(source, allow_pickle).items()}
    with atomic_path(target) as temporary:
        save_file(state, temporary)
