"""Rows that generate together: each leaves when its text ends, and others take the free places.

`model.generate` holds a whole batch until its longest text ends; captions differ in length by a
factor of three, so half of its work is for rows that are done. Here a small group of rows reads its
prompts while the others wait, and joins them for the steps that follow.

For decoder-only models whose cache keeps every position (LLaVA, Qwen-VL, SmolVLM, Idefics3,
InternVL, PaliGemma and their like; Gemma 3 for texts shorter than its window). `prefill`
says whether a model is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from recaption.engines.protocol import Sampling
from recaption.engines.sampling import SeededSampler
from recaption.engines.transformers.flight_state import State
from recaption.engines.transformers.prefill import Prefilled

# Steps between two looks at which rows have ended: a look waits for the device, whose queue of work
# would run dry; on the CPU it is free.
_STEPS_BETWEEN_LOOKS = 4


@dataclass(frozen=True)
class Written:
    """A finished row: its token numbers up to and with its end token, and whether it has one."""

    row: int
    tokens: list[int]
    ended: bool


class Flight:
    """Rows in the middle of their texts."""

    def __init__(self, model: Any, end_tokens: torch.Tensor, sampling: Sampling) -> None:
        """
        Args:
            end_tokens: (E,) token numbers that end a text.
            sampling: of all rows.
        """
        self._model = model
        self._end_tokens = end_tokens
        self._sampling = sampling
        self._sampler = SeededSampler(sampling) if sampling.temperature > 0 else None
        self._steps_between_looks = 1 if end_tokens.device.type == "cpu" else _STEPS_BETWEEN_LOOKS
        self._state: State | None = None
        self._padded = False
        # One entry a row of the state: the caller's number, whether it was not returned yet, and
        # the tokens that it may still write.
        self._rows: list[int] = []
        self._writing: list[bool] = []
        self._left: list[int] = []

    def __len__(self) -> int:
        """Rows that were not returned yet."""
        return sum(self._writing)

    @property
    def length(self) -> int:
        """Positions in the cache: those of the longest row and of the padding before others."""
        return 0 if self._state is None or not len(self) else self._state.mask.shape[1]

    @torch.inference_mode()
    def join(self, rows: list[int], seeds: list[int], group: Prefilled) -> None:
        """Add rows that have read their prompts; `group` is emptied.

        Args:
            rows: the caller's numbers for them.
            seeds: one a row.
        """
        self._leave()
        most = self._sampling.max_new_tokens
        fresh = State.beginning(group, seeds, self._sampling)
        # The first token comes out of the prompt's logits, which the rows in flight have none of.
        self._take(fresh, group.logits)
        self._state = fresh if self._state is None else self._state.with_rows(fresh, most)
        self._rows += rows
        self._writing += [True] * len(rows)
        self._left += [most - 1] * len(rows)
        self._padded = not bool(self._state.mask.all())

    @torch.inference_mode()
    def fly(self) -> list[Written]:
        """Write tokens until rows end; those rows. To be called while there are rows."""
        assert self._state is not None
        for step in count(1):
            # When the first row reaches its limit is known beforehand, so a look is never late.
            at_limit = min(n for n, on in zip(self._left, self._writing, strict=True) if on) <= 0
            if at_limit or step % self._steps_between_looks == 0:
                ended = self._look(self._state)
                if ended:
                    return ended
            self._step(self._state)
            self._left = [left - 1 for left in self._left]
        raise AssertionError("rows end at their limit")

    def shrink(self) -> None:
        """Give up the places of rows that ended, where that saves at least a quarter."""
        if 4 * len(self) <= 3 * len(self._rows):
            self._leave()

    def _step(self, state: State) -> None:
        state.positions = state.positions + 1
        one_more = state.mask.new_ones((len(state.mask), 1))
        state.mask = torch.cat([state.mask, one_more], dim=1)
        inputs = self._model.prepare_inputs_for_generation(
            state.last[:, None],
            next_sequence_length=1,
            past_key_values=state.cache,
            attention_mask=state.mask.long() if self._padded else None,
            position_ids=state.positions,
            use_cache=True,
            **state.options,
        )
        answer = self._model(**inputs, return_dict=True)
        self._take(state, answer.logits[:, -1].float())

    def _take(self, state: State, logits: torch.Tensor) -> None:
        """Choose every row's next token from (B, V) float32 logits."""
        if state.seen is not None:
            # Keskar et al. 2019, section 4.1, with transformers' rule for negative logits.
            penalty = self._sampling.repetition_penalty
            harsher = torch.where(logits < 0, logits * penalty, logits / penalty)
            logits = torch.where(state.seen, harsher, logits)
        if self._sampler is None:
            chosen = logits.argmax(-1)
        else:
            chosen = self._sampler.draw(logits, state.seeds, state.steps + 1)
        last = self._sampling.max_new_tokens - 1
        place = state.steps.clamp(max=last)[:, None]
        # A row that has ended goes on until the next look; what it says then is not kept.
        kept = torch.where(state.alive[:, None], chosen[:, None], state.tokens.gather(1, place))
        state.tokens.scatter_(1, place, kept)
        if state.seen is not None:
            state.seen.scatter_(1, chosen[:, None], True)
        ends = torch.isin(chosen, self._end_tokens) | (state.steps >= last)
        state.steps = state.steps + state.alive
        state.alive = state.alive & ~ends
        state.last = chosen

    def _look(self, state: State) -> list[Written]:
        """Rows that ended since the last look."""
        alive = state.alive.tolist()
        ended = [n for n, on in enumerate(self._writing) if on and not alive[n]]
        if not ended:
            return []
        lengths = state.steps[ended].tolist()
        tokens = state.tokens[ended].tolist()
        end_tokens = set(self._end_tokens.tolist())
        for number in ended:
            self._writing[number] = False
        return [
            Written(self._rows[number], row[:length], row[length - 1] in end_tokens)
            for number, row, length in zip(ended, tokens, lengths, strict=True)
        ]

    def _leave(self) -> None:
        """Drop the rows that were returned."""
        keep = [number for number, on in enumerate(self._writing) if on]
        if self._state is None or len(keep) == len(self._rows):
            return
        self._rows = [self._rows[number] for number in keep]
        self._left = [self._left[number] for number in keep]
        self._writing = [True] * len(keep)
        self._state = self._state.only(keep, max(self._left)) if keep else None
        self._padded = self._state is not None and not bool(self._state.mask.all())
