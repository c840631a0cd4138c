"""Hidden states of a language model (Gemma, Qwen, Llama) that reads a caption in a template."""

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
    from transformers import PreTrainedTokenizerFast

_PREFIXES = ("keep", "drop", "instruction")


class TemplateTokenizer(CaptionTokenizer):
    """A caption in a template, and which of its tokens become features.

    `options.prefix` says what becomes of the template's text before the caption, once the model
    has read it: keep it (Z-Image), drop it (Qwen-Image), or instruction, which is Sana's way: BOS
    and the last T - 1 tokens are kept, and the empty caption, which stands for no caption at all,
    is read without any template.

        ids, mask (N, L): template and caption, padded
        keep (N, T): positions of the features among the L
    """

    columns = ("ids", "mask", "keep")

    def __init__(self, tokenizer: PreTrainedTokenizerFast, config: TextConfig) -> None:
        """
        Raises:
            ConfigError: no {} in the template, or no such `prefix`.
        """
        super().__init__(tokenizer, config)
        self.prefix = str(config.options.get("prefix", "keep"))
        if self.prefix not in _PREFIXES:
            raise ConfigError(
                f"{config.name}: prefix is one of {', '.join(_PREFIXES)}, not {self.prefix!r}."
            )
        self.template = config.template or "{}"
        if "{}" not in self.template:
            raise ConfigError(f"{config.name}: its template lacks {{}}, the caption's place.")
        prefix = self.template.partition("{}")[0]
        before = len(tokenizer(prefix, truncation=False, verbose=False)["input_ids"])
        self.skipped = {"keep": 0, "drop": before, "instruction": max(before - 2, 0)}[self.prefix]

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Ids, mask (N, L) and keep (N, T)."""
        ids, mask = self.padded(texts, self.window + self.skipped)
        keep = np.arange(self.window)[None] + np.full((len(texts), 1), self.skipped)
        if self.prefix == "instruction":
            keep[:, 0] = 0
            bare = [not text for text in super().prepared(texts)]
            keep[bare] = np.arange(self.window)
        return ids, mask, keep

    def prepared(self, texts: Sequence[str]) -> list[str]:
        """The captions in their template."""
        bare = self.prefix == "instruction"
        return [
            text if bare and not text else self.template.replace("{}", text, 1)
            for text in super().prepared(texts)
        ]

    def cut(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """(N,) which texts, in their template, do not fit the window."""
        most = self.window + self.skipped
        return np.array([len(ids) > most for ids in self.whole(texts)], bool)

    def pieces(self, text: str) -> list[str]:
        """What is kept of a text in its template, piece by piece."""
        ids, mask, keep = (array[0] for array in self.encode([text]))
        return [self.tokenizer.decode([int(ids[i])]).strip() for i in keep if mask[i]]


class DecoderText(Encoder):
    """The hidden states of one layer; the head over the vocabulary is not computed."""

    def forward(self, tokens: Tokens) -> TextFeatures:
        """Features of the T tokens that are kept."""
        ids, mask, keep = self.own(tokens)
        output = self.model.base_model(
            input_ids=ids,
            attention_mask=mask,
            output_hidden_states=self.config.layer != -1,
            use_cache=False,
        )
        hidden = self.hidden(output)
        sequence = hidden.gather(1, keep[..., None].expand(-1, -1, hidden.shape[-1]))
        return self.features(sequence, mask.gather(1, keep))
