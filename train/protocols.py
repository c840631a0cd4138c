"""What the four exchangeable parts of a diffusion model promise each other, and what travels.

An Objective says how a picture becomes noise and what a network is asked; a Backbone is the
network; a TextEncoder turns captions into what the backbone reads; Latents are the space that all
of it happens in. Each implementation is a file of its own; the loop knows these pages alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from diffusers import SchedulerMixin
    from numpy.typing import NDArray

Tokens = dict[str, Tensor]
"""Token ids and masks of B texts by name, int64 (B, T...), as an encoder's `tokenize` made them."""


@dataclass(frozen=True)
class TextFeatures:
    """What B captions became."""

    sequence: Tensor
    """(B, T, D)."""
    mask: Tensor
    """(B, T), 1 = a token that may be looked at, in the sequence's dtype."""
    pooled: Tensor | None = None
    """(B, P), for backbones that want one."""


@dataclass(frozen=True)
class Drawn:
    """The captions of one batch, as they were drawn: what the receipt counts.

    texts: what is encoded, "" where dropped; kind: (B,) index into the blend's kinds; wanted: (B,)
    the same of what the seed drew, which is another where the picture lacks it and falls back;
    sample_index: (B,) which of the picture's captions of that kind; dropped: (B,) bool.
    """

    texts: Sequence[str]
    kind: NDArray[np.int64]
    wanted: NDArray[np.int64]
    sample_index: NDArray[np.int64]
    dropped: NDArray[np.bool_]


@dataclass
class Batch:
    """One rank's share of one step, on the CPU (pinned where there is a GPU)."""

    step: int
    rows: NDArray[np.int64]
    """(b,) rows of the training index."""
    x: Tensor
    """Pictures (b, H, W, 3) uint8, or cached latents (b, C, h, w) as the latents scale them."""
    text: Tokens | TextFeatures
    """TextFeatures where they are cached, else tokens that the model's encoder takes."""
    size_ids: Tensor
    """(b, 6) float32: original height, width, crop top, left, target height, width, in pixels."""
    conditions: Tensor
    """(b, n) int64: bucket of each score that is a condition, from 1; 0 = unknown or dropped."""
    loss_weight: Tensor
    """(b,) float32."""
    drawn: Drawn

    def __len__(self) -> int:
        return len(self.rows)


class Objective(Protocol):
    """How pictures are noised and what is learned. Pure functions of their arguments.

    Times `t` (B,) are the objective's own (flow: 0..1, ddpm: 0..999, edm: sigma). x0, noise and
    x_t are (B, C, h, w), float32.
    """

    def times(self, normal: Tensor, uniform: Tensor) -> Tensor:
        """Training times (B,) from standard normal (B,) and uniform (2, B) numbers."""
        ...

    def stratified_times(self, count: int) -> Tensor:
        """(count,) times for validation, at even quantiles of the noise range."""
        ...

    def noised(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t."""
        ...

    def model_input(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the network is shown: x_t, or x_t preconditioned."""
        ...

    def model_time(self, t: Tensor) -> Tensor:
        """(B,) float32 what the network is told as its timestep, in diffusers' units."""
        ...

    def loss(self, output: Tensor, x0: Tensor, noise: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Weighted squared error of each picture (B,), float32."""
        ...

    def predicted_x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean picture that a network's output stands for."""
        ...

    def scheduler(self, sampler: str, shift: float, thresholding: bool = False) -> SchedulerMixin:
        """diffusers' scheduler that samples what this objective trained; it is exported as it is.

        Args:
            sampler: "euler", "ddim", "ddpm" or "dpm++".

        Raises:
            ConfigError: there is no such sampler for this objective.
        """
        ...


class TextEncoder(Protocol):
    """One encoder, or several joined. An nn.Module; frozen unless `trainable`."""

    width: int
    """D of the sequence."""
    pooled_width: int
    """P; 0 = none."""
    tokens: int
    """T."""
    trainable: bool

    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """On the CPU, in any process; padded or cut to the window."""
        ...

    def __call__(self, tokens: Tokens) -> TextFeatures:
        """On the encoder's device, in its dtype."""
        ...

    def identity(self) -> dict[str, Any]:
        """What cached features hang on: weights' hashes, layers, windows."""
        ...

    def parts(self) -> dict[str, Any]:
        """Name -> tokenizer or model, as the exported diffusers pipeline names its parts."""
        ...


class Latents(Protocol):
    """The space of pictures that the backbone works in."""

    channels: int
    factor: int
    """Pixels a side of one latent; 1 = pixels."""

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, C, h, w) float32, scaled to about unit variance, from (B, 3, H, W) in -1..1."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 3, H, W) float32 in about -1..1."""
        ...

    def to(self, device: Any) -> Latents:
        """Move the autoencoder, if there is one."""
        ...

    def identity(self) -> dict[str, Any]:
        """What cached latents hang on."""
        ...

    def parts(self) -> dict[str, Any]:
        """Name -> part, as the exported pipeline names it ("vae")."""
        ...


class Backbone(Protocol):
    """The network. An nn.Module around one of diffusers' classes."""

    inner: nn.Module
    """diffusers' model, as it is saved."""

    def __call__(
        self, x: Tensor, time: Tensor, text: TextFeatures, size_ids: Tensor | None = None
    ) -> Tensor:
        """Output (B, C, h, w) for x (B, C, h, w), `Objective.model_time` (B,) and text."""
        ...

    def blocks(self) -> list[nn.Module]:
        """The repeated blocks, in order: what is compiled, sharded and recomputed."""
        ...
