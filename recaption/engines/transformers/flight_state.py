"""What is known of rows between two tokens, as columns: rows are chosen from it and added to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from recaption.engines.protocol import Sampling
from recaption.engines.transformers.prefill import Prefilled
from recaption.engines.transformers.roomy_cache import joined


@dataclass
class State:
    """Rows between two steps: B rows, L positions in the cache.

    Attributes:
        cache: of L positions; the last chosen token is not in it yet.
        mask: (B, L) bool, False at padding.
        positions: (..., B, 1), of the last position.
        options: for every forward pass.
        seeds, steps: (B,) int64, each row's seed and the tokens that it has written.
        alive: (B,) bool, False where a text has ended.
        tokens: (B, most new tokens) int64, what was written.
        last: (B,) int64, the last chosen token.
        seen: (B, V) bool, the tokens of prompt and text, where repetition costs; else None.
    """

    cache: Any
    mask: torch.Tensor
    positions: torch.Tensor
    options: dict[str, Any]
    seeds: torch.Tensor
    steps: torch.Tensor
    alive: torch.Tensor
    tokens: torch.Tensor
    last: torch.Tensor
    seen: torch.Tensor | None

    @classmethod
    def beginning(cls, group: Prefilled, seeds: list[int], sampling: Sampling) -> State:
        """The state of rows that have written nothing; takes over the group's cache."""
        rows, device = len(seeds), group.logits.device
        seen = None
        if sampling.repetition_penalty != 1.0:
            none = torch.zeros_like(group.logits, dtype=torch.bool)
            # Padding is no word that was said.
            seen = none.scatter(1, group.prompts, group.mask)
        return cls(
            cache=joined([(group.cache, None, 0)], group.mask.shape[1], sampling.max_new_tokens),
            mask=group.mask,
            positions=group.positions,
            options=group.options,
            seeds=torch.tensor(seeds, dtype=torch.int64, device=device),
            steps=torch.zeros(rows, dtype=torch.int64, device=device),
            alive=torch.ones(rows, dtype=torch.bool, device=device),
            tokens=torch.zeros((rows, sampling.max_new_tokens), dtype=torch.int64, device=device),
            last=torch.zeros(rows, dtype=torch.int64, device=device),
            seen=seen,
        )

    def only(self, rows: list[int], room: int) -> State:
        """The state of some of the rows, without positions that are padding in all of them."""
        chosen = torch.tensor(rows, device=self.alive.device)
        mask = self.mask[chosen]
        dropped = _padding(mask)
        mask = mask[:, dropped:]
        return State(
            cache=joined([(self.cache, chosen, dropped)], mask.shape[1], room),
            mask=mask,
            positions=self.positions.index_select(-2, chosen),
            options=self.options,
            seeds=self.seeds[chosen],
            steps=self.steps[chosen],
            alive=self.alive[chosen],
            tokens=self.tokens[chosen],
            last=self.last[chosen],
            seen=None if self.seen is None else self.seen[chosen],
        )

    def with_rows(self, other: State, room: int) -> State:
        """The state of these rows and others behind them; both caches are emptied."""
        dropped = _padding(self.mask)
        mine, theirs = self.mask[:, dropped:], other.mask
        length = max(mine.shape[1], theirs.shape[1])
        pad = torch.nn.functional.pad
        masks = [pad(mask, (length - mask.shape[1], 0)) for mask in (mine, theirs)]
        both = self.seen is not None and other.seen is not None
        return State(
            cache=joined([(self.cache, None, dropped), (other.cache, None, 0)], length, room),
            mask=torch.cat(masks),
            positions=torch.cat([self.positions, other.positions], dim=-2),
            options=other.options,
            seeds=torch.cat([self.seeds, other.seeds]),
            steps=torch.cat([self.steps, other.steps]),
            alive=torch.cat([self.alive, other.alive]),
            tokens=torch.cat([self.tokens, other.tokens]),
            last=torch.cat([self.last, other.last]),
            seen=torch.cat([self.seen, other.seen]) if both else None,  # type: ignore[list-item]
        )


def _padding(mask: torch.Tensor) -> int:
    """Positions at the left that are padding in every row of a (B, L) mask."""
    return int(mask.int().argmax(1).min())
