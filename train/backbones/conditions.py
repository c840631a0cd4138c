"""Scores that a model is told: one learned token a score column, beside the caption's tokens."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from curate.base.errors import ConfigError
from curate.base.seeds import generator_of
from curate.base.weights import load_state_dict, metadata
from train.protocols import TextFeatures

CONDITIONS_FILE = "conditions.safetensors"


class ConditionTokens(nn.Module):
    """For each of n score columns, an embedding of the text's width for each bucket.

    Bucket 0 is "not told": dropped in training, unknown, or not asked for. Tokens need no change
    of the network, so they work in every family; those that read a mask see them always.
    """

    def __init__(self, columns: int, buckets: int, width: int, seed: int = 0) -> None:
        super().__init__()
        generator = generator_of(seed, "conditions.table")
        table = torch.empty(columns, buckets + 1, width).normal_(0, 0.02, generator=generator)
        self.table = nn.Parameter(table)
        self.edges: dict[str, list[float]] = {}
        """Column -> inner edges of its buckets, rising; bucket 1 lies below the first."""

    def forward(self, text: TextFeatures, conditions: Tensor) -> TextFeatures:
        """Text with n tokens more, for conditions (B, n) int64 buckets from 1, 0 = not told."""
        columns = torch.arange(len(self.table), device=conditions.device)
        tokens = self.table[columns, conditions].to(text.sequence.dtype)
        seen = text.mask.new_ones(conditions.shape)
        return TextFeatures(
            torch.cat([text.sequence, tokens], 1), torch.cat([text.mask, seen], 1), text.pooled
        )

    def buckets(self, scores: Mapping[str, float]) -> list[int]:
        """(n,) buckets of some columns' scores; 0 for columns that are not named.

        Raises:
            ConfigError: the model is not told such a column.
        """
        for name in scores:
            if name not in self.edges:
                told = ", ".join(self.edges) or "no score"
                raise ConfigError(f"The model is not told {name}; it is told {told}.")
        return [
            bisect_right(edges, scores[name]) + 1 if name in scores else 0
            for name, edges in self.edges.items()
        ]

    def save(self, path: Path, edges: Mapping[str, Sequence[float]] | None = None) -> None:
        """Write the embeddings in float32, with columns and edges (`self.edges` if not given)."""
        from safetensors.torch import save_file

        kept = {name: list(map(float, each)) for name, each in (edges or self.edges).items()}
        table = self.table.detach().cpu().float().contiguous()
        save_file({"table": table}, path, metadata={"edges": json.dumps(kept)})

    def fill(self, path: Path) -> None:
        """Take over what `save` wrote for these columns and buckets.

        Raises:
            ConfigError: it cannot be read, or holds the scores of another model.
        """
        stored = type(self).load(path)
        if stored.table.shape != self.table.shape:
            raise ConfigError(f"{path} holds the scores of another model.")
        self.table.data.copy_(stored.table)
        self.edges = stored.edges

    def take_over(self, path: Path, columns: Sequence[str]) -> None:
        """Take over the embeddings of those of `columns` that the model of `path` was told too.

        Args:
            columns: this model's, in order.

        Raises:
            ConfigError: it cannot be read, or was told in other buckets.
        """
        stored = type(self).load(path)
        if stored.table.shape[1:] != self.table.shape[1:]:
            raise ConfigError(
                f"{path} holds scores in {stored.table.shape[1] - 1} buckets, of width "
                f"{stored.table.shape[2]}; set condition_buckets so, or start from another model."
            )
        for own, name in enumerate(columns):
            if name in stored.edges:
                self.table.data[own] = stored.table.data[list(stored.edges).index(name)]

    @classmethod
    def load(cls, path: Path) -> ConditionTokens:
        """What `save` wrote.

        Raises:
            ConfigError: it cannot be read, or is another kind of file.
        """
        tensors = load_state_dict(path)
        try:
            table, edges = tensors["table"], json.loads(metadata(path)["edges"])
        except (KeyError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path} holds no condition tokens.") from error
        columns, buckets, width = table.shape
        loaded = cls(columns, buckets - 1, width)
        loaded.table.data.copy_(table)
        loaded.edges = edges
        return loaded
