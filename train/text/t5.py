"""Encoders of the T5 kind (T5, UMT5, T5Gemma): the last hidden state of every token."""

from __future__ import annotations

from train.protocols import TextFeatures, Tokens
from train.text.encoder import Encoder


class T5Text(Encoder):
    """Reads padding, as SD3 and Flux do, unless it is masked, as in PixArt and the own words."""

    def forward(self, tokens: Tokens) -> TextFeatures:
        """Features of T tokens."""
        ids, mask = self.own(tokens)
        output = self.model(
            input_ids=ids,
            attention_mask=mask if self.config.masked else None,
            output_hidden_states=self.config.layer != -1,
        )
        return self.features(self.hidden(output), mask)
