"""The copy descriptor: 64 numbers that stay when a picture is edited, to find candidates with.

A small convolutional net of our own, trained so that two random edits of one picture (crops,
mirroring, rotation, changes of light and colour, labels and logos, blur) lie closer than any other
picture of the batch: contrastive learning with a term that spreads the descriptors over the sphere,
after Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection" (SSCD), CVPR 2022, at a
thousandth of its size. `pipelines.copy_descriptor` trains it again; data/copy_descriptor.json
says on what, and what it reaches on photographs that it never saw.

It proposes, like the hashes: which candidates are copies is decided on the pixels, by
curate.duplicates.verify.registration.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.base.weights import load_state_dict
from curate.pictures.decode import CANVAS

if TYPE_CHECKING:
    from torch import Tensor, nn

WIDTH = 64
"""Numbers of a descriptor; its Euclidean length is 1."""
SIDE = 64
"""Side of the net's input in pixels."""
WEIGHTS = Path(__file__).parent / "data" / "copy_descriptor.safetensors"

LAYERS: tuple[tuple[int, int, int], ...] = (
    (3, 32, 2),
    (32, 48, 2),
    (48, 48, 1),
    (48, 48, 1),
    (48, 96, 2),
    (96, 96, 1),
    (96, 96, 1),
    (96, 128, 2),
)
"""Channels in, channels out and stride of each 3 x 3 convolution; the last map is 4 x 4."""
_BATCH = 16


def make_network(normalised: bool = False) -> nn.Module:
    """The net: (B, 3, 64, 64) float32 from `net_input` -> (B, 64), not yet of length 1.

    Convolutions of one width add their input to their output (He et al., 2016). The last 4 x 4 map
    is added to its own mirror image, since a mirrored copy is a copy.

    Args:
        normalised: with batch normalisation, as it is trained; the shipped weights have it folded
            into the convolutions (pipelines.copy_descriptor).
    """
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolutions = nn.ModuleList(
                nn.Conv2d(i, o, 3, stride, 1, bias=not normalised) for i, o, stride in LAYERS
            )
            self.norms = nn.ModuleList(
                nn.BatchNorm2d(o) if normalised else nn.Identity() for _, o, _ in LAYERS
            )
            self.out = nn.Linear(LAYERS[-1][1] * 8, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            for convolution, norm in zip(self.convolutions, self.norms, strict=True):
                y = norm(convolution(x))
                x = torch.relu(y + x if y.shape == x.shape else y)
            both = x + x.flip(3)  # columns 0 and 3, and 1 and 2, are equal now
            found: Tensor = self.out(both[:, :, :, :2].flatten(1))
            return found

    return Network()


def net_input(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, 64, 64, 3) uint8 -> (B, 3, 64, 64) float32 without its own light and contrast."""
    import torch

    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    spread = x.std(dim=(1, 2, 3), keepdim=True)
    return (x - mean) / (spread + 4.0)  # a flat picture stays flat


class CopyDescriptor:
    """The net with weights: canvases to descriptors."""

    def __init__(self, path: Path | str = WEIGHTS) -> None:
        import torch

        self.network = make_network()
        self.network.load_state_dict(
            {name: tensor.float() for name, tensor in load_state_dict(path).items()}
        )
        self.network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, canvas: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 128, 128, 3) uint8 -> (B, 64) float32 of length 1."""
        import torch

        fold = CANVAS // SIDE
        small = canvas.reshape(-1, SIDE, fold, SIDE, fold, 3).mean(axis=(2, 4), dtype=np.float32)
        pictures = (small + 0.5).astype(np.uint8)
        found = [np.empty((0, WIDTH), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                # Always as many: rounding depends on the batch's size, and must not.
                batch = np.zeros((_BATCH, SIDE, SIDE, 3), np.uint8)
                count = len(some := pictures[start : start + _BATCH])
                batch[:count] = some
                x = net_input(batch).contiguous(memory_format=torch.channels_last)
                y = torch.nn.functional.normalize(self.network(x), dim=1)
                found.append(y[:count].numpy())
        return np.concatenate(found)
