"""Features of a frozen encoder for all captions of a run, computed once and kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from train.protocols import TextFeatures

MOST_NUMBERS = 2**26
"""That are kept: 256 MiB in float32, 20,000 captions of 26 tokens of width 128."""
_AT_A_TIME = 64


class KeptText:
    """Features by the text itself, as CachedText gives them.

    All are computed before the first step in an order that hangs on the captions alone, so a run
    that goes on after a kill, or on other numbers of processes, reads the same bits.
    """

    def __init__(self, encoder: Any, texts: Sequence[str], device: torch.device) -> None:
        self._rows = {text: row for row, text in enumerate(texts)}
        parts: list[TextFeatures] = []
        with torch.no_grad():
            for start in range(0, len(texts), _AT_A_TIME):
                tokens = encoder.tokenize(texts[start : start + _AT_A_TIME])
                features = encoder({name: ids.to(device) for name, ids in tokens.items()})
                pooled = None if features.pooled is None else features.pooled.cpu()
                parts.append(TextFeatures(features.sequence.cpu(), features.mask.cpu(), pooled))
        first = parts[0]
        self._features = TextFeatures(
            torch.cat([part.sequence for part in parts]),
            torch.cat([part.mask for part in parts]),
            None if first.pooled is None else torch.cat([part.pooled for part in parts]),  # type: ignore[misc]
        )

    @classmethod
    def of(cls, encoder: Any, texts: Iterable[str], device: torch.device) -> KeptText | None:
        """Of all `texts` and the empty one; None where they are too many to be kept."""
        numbers = encoder.tokens * encoder.width + encoder.pooled_width
        found = _distinct(texts, MOST_NUMBERS // numbers)
        return None if found is None else cls(encoder, found, device)

    def features(self, texts: Sequence[str]) -> TextFeatures:
        """Sequence (B, T, D), mask (B, T) and pooled (B, P), on the CPU."""
        kept, rows = self._features, torch.tensor([self._rows[text] for text in texts])
        pooled = None if kept.pooled is None else kept.pooled[rows]
        return TextFeatures(kept.sequence[rows], kept.mask[rows], pooled)


def _distinct(texts: Iterable[str], most: int) -> list[str] | None:
    """Every text once, and the empty one; None where they are more than `most`."""
    found = {"": None}
    for text in texts:
        found[text] = None
        if len(found) > most:
            return None
    return list(found)
