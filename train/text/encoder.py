"""What all text encoders share: a transformers model, its tokenizer, and their names and hashes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curate.base.files import fingerprint
from train.model_settings import TextConfig
from train.protocols import TextFeatures, Tokens
from train.sources import weights_hash
from train.text.tokens import CaptionTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Encoder(nn.Module):
    """One text encoder; a subclass says in `forward` how its family reads the model.

    Always in eval mode, also while it is trained: with T5's dropout no step could be made again.
    """

    pooled_width = 0

    def __init__(
        self,
        config: TextConfig,
        tokenizer: CaptionTokenizer,
        model: PreTrainedModel,
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            folder: where the weights came from; None = they were made here.
        """
        super().__init__()
        self.config, self.tokenizer, self.folder = config, tokenizer, folder
        self.model = model.requires_grad_(config.trainable)
        self.eval()
        self.tokens = tokenizer.tokens
        # T5 calls it d_model, and transformers knows that by this name as well.
        self.width = int(model.config.get_text_config().hidden_size)

    def train(self, mode: bool = True) -> Encoder:
        """There is no training mode."""
        super().train(False)
        return self

    def own(self, tokens: Tokens) -> tuple[Tensor, ...]:
        """The columns of this encoder among `tokens`."""
        return tuple(tokens[f"{self.config.name}.{c}"] for c in self.tokenizer.columns)

    def hidden(self, output: Any) -> Tensor:
        """The layer that is asked for, of an output with hidden states."""
        layer = self.config.layer
        state: Tensor = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        return state

    def features(
        self, sequence: Tensor, mask: Tensor, pooled: Tensor | None = None
    ) -> TextFeatures:
        """Features whose mask (B, T) hides padding only if the config says so."""
        mask = mask if self.config.masked else torch.ones_like(mask)
        return TextFeatures(sequence, mask.to(sequence.dtype), pooled)

    def identity(self) -> dict[str, Any]:
        """Hashes of weights and tokenizer, and how they are read."""
        tokenizer = json.loads(self.tokenizer.tokenizer.backend_tokenizer.to_str())
        # How it was last asked to cut and pad is no part of it.
        tokenizer |= {"truncation": None, "padding": None}
        return {
            **self.config.model_dump(mode="json", exclude={"trainable"}),
            "tokenizer": fingerprint(tokenizer),
            "weights": weights_hash(self.folder) if self.folder else _hash_parameters(self.model),
        }

    def parts(self) -> dict[str, Any]:
        """Tokenizer and model by their names in a pipeline."""
        name = self.config.name
        return {tokenizer_name(name): self.tokenizer.tokenizer, name: self.model}


def tokenizer_name(name: str) -> str:
    """text_encoder_2 -> tokenizer_2."""
    return "tokenizer" + name.removeprefix("text_encoder")


def _hash_parameters(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
