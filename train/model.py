"""The parts of a text-to-image model, joined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from train.model_settings import ModelConfig
from train.protocols import Latents, Objective, TextFeatures, Tokens
from train.settings import TrainSettings
from train.text.joined import last_real

if TYPE_CHECKING:
    from train.backbones.conditions import ConditionTokens

_Text = TypeVar("_Text", Tokens, TextFeatures)


class TextToImage(nn.Module):
    """Captions and a noised picture in, the network's output out.

    Children are what may be trained: `backbone`, `text` and, where the model is told scores,
    `conditions`. `latents` and `objective` are plain attributes.
    """

    def __init__(
        self,
        backbone: nn.Module,
        text: nn.Module,
        latents: Latents,
        objective: Objective,
        conditions: ConditionTokens | None = None,
    ) -> None:
        super().__init__()
        self.text: Any = text
        self.backbone: Any = backbone
        self.conditions = conditions
        self.latents = latents
        self.objective = objective
        self.computes_in: torch.dtype | None = None
        """Where weights are kept in another precision than they compute in (FSDP)."""

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: Tokens | TextFeatures,
        size_ids: Tensor | None = None,
        conditions: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Output (B, C, h, w).

        Args:
            x: `Objective.model_input` (B, C, h, w), in the model's dtype.
            time: `Objective.model_time` (B,), float32.
            text: tokens, or features that were computed before.
            size_ids: (B, 6), as in Batch; conditions: (B, n) int64, 0 = not told.
            guidance: told to networks that were distilled to imitate it.
        """
        features = text if isinstance(text, TextFeatures) else self.text(text)
        if self.conditions is not None and conditions is not None:
            features = self.conditions(features, conditions)
        output: Tensor = self.backbone(x, time, features, size_ids, guidance)
        return output

    def without_padding(self, text: _Text) -> _Text:
        """Text on the CPU, cut behind the last real token of the batch.

        Only where padding is hidden from encoder and network, so that the output is the same but
        for rounding.
        """
        if not self.backbone.row.masked:
            return text
        if isinstance(text, TextFeatures):
            longest = last_real(text.mask)
            return replace(text, sequence=text.sequence[:, :longest], mask=text.mask[:, :longest])
        tokens: Tokens = self.text.without_padding(text)
        return tokens

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.backbone.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        dtype: torch.dtype = next(self.backbone.parameters()).dtype
        return self.computes_in or dtype

    def patches(self, resolution: int) -> int:
        """Places that the backbone looks at in a square picture."""
        patch = self.backbone.config.get("patch_size") or 1
        return int((resolution // (self.latents.factor * patch)) ** 2)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def trained_parts(self) -> list[Any]:
        """The children that hold something that is trained."""
        return [
            child for child in self.children() if any(p.requires_grad for p in child.parameters())
        ]


@dataclass(frozen=True)
class Trained:
    """A model with the settings that it was trained with, ready to sample."""

    model: TextToImage
    settings: TrainSettings
    config: ModelConfig

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.model.dtype
