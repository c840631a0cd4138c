"""Sampling whose draws belong to the row: the same words in any batch, on any device.

`torch.multinomial` draws for a whole batch from one generator, so a row's words would depend on
its neighbours. Here greedy search is turned into sampling by the Gumbel-max trick (argmax of
logits plus Gumbel noise is a draw from their softmax; Gumbel 1954), with noise computed from
(row's seed, step, token) by a counter-based hash instead of drawn from a generator.
"""

from __future__ import annotations

import torch

from recaption.engines.protocol import Sampling

# splitmix64 (Steele, Lea and Flood 2014), as signed 64-bit numbers: torch has no unsigned ones.
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def draw(logits: torch.Tensor, sampling: Sampling, seeds: torch.Tensor, step: int) -> torch.Tensor:
    """One token a row, (B,). Cost: O(B * V), or O(B * top_k) hashes with top-k; top-p sorts rows.

    Args:
        logits: (B, V).
        sampling: temperature above 0.
        seeds: (B,) int64.
        step: which token of the texts is drawn; the first is 1.
    """
    values, tokens = _candidates(logits.double() / sampling.temperature, sampling)
    noise = gumbel_noise(_mix(seeds + 1), torch.full_like(seeds, step), tokens)
    return tokens.gather(-1, (values + noise).argmax(-1, keepdim=True))[:, 0]


class SeededProcessor:
    """The same draws as a logits processor of one `generate` call, which it counts the steps of.

    It leaves one finite score a row, so that greedy search takes the token that was drawn.
    """

    def __init__(self, seeds: torch.Tensor, sampling: Sampling) -> None:
        """
        Args:
            seeds: (B,) int64, one a row.
            sampling: temperature above 0.
        """
        self._seeds, self._sampling, self._step = seeds, sampling, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(B, V) scores -> (B, V) with 0 at the drawn token and -inf elsewhere."""
        self._step += 1
        drawn = draw(scores, self._sampling, self._seeds.to(scores.device), self._step)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn[:, None], 0.0)


def gumbel_noise(seeds: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise for (B,) seeds and steps and (B, K) token numbers; (B, K) float64."""
    counters = _mix(seeds + steps * _GAMMA)[:, None] + tokens * _GAMMA
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
