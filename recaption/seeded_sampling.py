"""Sampling whose draws belong to the row: the same words in any batch, on any device.

`torch.multinomial` draws for a whole batch from one generator, so a row's words would depend on
its neighbours. Here greedy search is turned into sampling by the Gumbel-max trick (argmax of
logits plus Gumbel noise is a draw from their softmax; Gumbel 1954), with noise computed from
(row's seed, step, token) by a counter-based hash instead of drawn from a generator.
"""

from __future__ import annotations

import torch

from recaption.engine import Sampling

# splitmix64 (Steele, Lea and Flood 2014), as signed 64-bit numbers: torch has no unsigned ones.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


class SeededSampler:
    """A logits processor that leaves one finite score a row: the token that was drawn.

    Made for one `generate` call; counts its steps. Cost a step: O(B * V), or O(B * top_k) hashes
    with top-k, and a sort of each row with top-p.
    """

    def __init__(self, seeds: torch.Tensor, sampling: Sampling) -> None:
        """
        Args:
            seeds: (B,) int64, one a row.
            sampling: temperature above 0.
        """
        self._seeds = _mix(seeds + 1)
        self._sampling = sampling
        self._step = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V) scores -> (B, V) with 0 at the drawn token and -inf elsewhere."""
        values, tokens = _candidates(scores.double() / self._sampling.temperature, self._sampling)
        self._step += 1
        noise = gumbel_noise(self._seeds.to(scores.device), self._step, tokens)
        drawn = tokens.gather(-1, (values + noise).argmax(-1, keepdim=True))
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)


def gumbel_noise(seeds: torch.Tensor, step: int, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise for (B,) seeds, a step and (B, K) token numbers; (B, K) float64."""
    steps = torch.full_like(seeds, step) * _GAMMA  # as tensors, which wrap around at 64 bits
    counters = _mix(seeds + steps)[:, None] + tokens * _GAMMA
    # 53 bits, moved by half a step so that neither 0 nor 1 comes out.
    uniform = (((_mix(counters) >> 11) & ((1 << 53) - 1)).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def _candidates(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that may be drawn, with their token numbers: (B, K) each; barred ones are -inf."""
    vocabulary = logits.shape[-1]
    kept = min(sampling.top_k or vocabulary, vocabulary)
    if kept == vocabulary and sampling.top_p >= 1.0:
        return logits, torch.arange(vocabulary, device=logits.device).expand_as(logits)
    values, tokens = logits.topk(kept, dim=-1)
    if sampling.top_p < 1.0:
        shares = values.softmax(-1)
        # A token stays while the likelier ones together hold less than top_p, so one always does.
        before = shares.cumsum(-1) - shares
        values = values.masked_fill(before >= sampling.top_p, -torch.inf)
    return values, tokens


def _mix(state: torch.Tensor) -> torch.Tensor:
    state = (state ^ _shift(state, 30)) * _MIX_1
    state = (state ^ _shift(state, 27)) * _MIX_2
    return state ^ _shift(state, 31)


def _shift(state: torch.Tensor, bits: int) -> torch.Tensor:
    # Torch shifts signed numbers arithmetically; the mask makes it the logical shift of the paper.
    return (state >> bits) & ((1 << (64 - bits)) - 1)
