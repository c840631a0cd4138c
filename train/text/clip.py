"""CLIP's and OpenCLIP's text towers, and long captions by windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from train.model_settings import TextConfig
from train.protocols import TextFeatures, Tokens
from train.text.encoder import Encoder
from train.text.tokens import CaptionTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel


class WindowTokenizer(CaptionTokenizer):
    """A caption over W windows of 75 tokens, each closed by its own BOS and EOS.

    As AUTOMATIC1111/stable-diffusion-webui and kohya-ss/sd-scripts read captions of more than 77
    tokens; windows that nothing is left for hold the empty caption.
    """

    @property
    def tokens(self) -> int:
        """T of the features, those of all windows."""
        return self.window * self.config.windows

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Ids and mask (N, W * window)."""
        if self.config.windows == 1:
            return self.padded(texts, self.window)
        first, last = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        shape = (len(texts), self.config.windows, self.window)
        ids = np.full(shape, self.tokenizer.pad_token_id, np.int32)
        mask = np.zeros(shape, np.int32)
        room = self.window - 2
        for row, own in enumerate(self.whole(texts, special=False)):
            for window in range(self.config.windows):
                piece = own[window * room : (window + 1) * room]
                ids[row, window, : len(piece) + 2] = [first, *piece, last]
                mask[row, window, : len(piece) + 2] = 1
        return ids.reshape(len(texts), -1), mask.reshape(len(texts), -1)

    def cut(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) which texts do not fit all windows."""
        room = (self.window - 2) * self.config.windows
        return np.array([len(ids) > room for ids in self.whole(texts, special=False)], bool)


class ClipText(Encoder):
    """CLIPTextModel, or CLIPTextModelWithProjection: OpenCLIP's towers in diffusers' layout.

    The pooled vector is the EOS token's: projected (SDXL, SD3) where the class has a projection,
    else behind the final norm (Flux). Of several windows it is the first one's.
    """

    def __init__(
        self,
        config: TextConfig,
        tokenizer: CaptionTokenizer,
        model: PreTrainedModel,
        folder: Path | None = None,
    ) -> None:
        super().__init__(config, tokenizer, model, folder)
        most = int(model.config.max_position_embeddings)
        if config.tokens > most:
            raise ConfigError(
                f"{config.name} reads {most} tokens at a time, not {config.tokens}; set tokens to "
                f"{most} and windows to more than 1."
            )
        self._projects = hasattr(model, "text_projection")
        if config.pooled:
            projection, hidden = model.config.projection_dim, model.config.hidden_size
            self.pooled_width = int(projection if self._projects else hidden)

    def forward(self, tokens: Tokens) -> TextFeatures:
        """Features of W * window tokens."""
        ids, mask = self.own(tokens)
        windows = self.config.windows
        # No mask goes in: the tower is causal, and padding (mostly EOS itself) comes behind.
        output = self.model(
            input_ids=ids.reshape(len(ids) * windows, -1),
            output_hidden_states=self.config.layer != -1,
        )
        sequence = self.hidden(output)
        if self.config.options.get("final_norm") and self.config.layer != -1:
            sequence = self.model.base_model.final_layer_norm(sequence)
        pooled = None
        if self.config.pooled:
            pooled = (output.text_embeds if self._projects else output.pooler_output)[::windows]
        return self.features(sequence.reshape(len(ids), self.tokens, -1), mask, pooled)
