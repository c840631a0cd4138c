"""Rows that generate together: each leaves when its text ends, and others take the free places.

`model.generate` holds a whole batch until its longest text ends; captions differ in length by a
factor of three, so half of its work is for rows that are done. Here a small group of rows reads its
prompts while the others wait, and joins them for the steps that follow.

For decoder-only models whose cache keeps every position (LLaVA, Qwen-VL, SmolVLM, Idefics3,
InternVL, PaliGemma and their like). `prefill` says whether a model is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from recaption.engine import Sampling
from recaption.roomy_cache import can_hold, joined
from recaption.seeded_sampling import SeededSampler

# Options of generate that every later forward pass needs again.
_KEPT_OPTIONS = ("logits_to_keep", "output_attentions", "output_hidden_states")
# Steps between two looks at which rows have ended: a look waits for the device, whose queue of work
# would run dry; on the CPU it is free.
_STEPS_BETWEEN_LOOKS = 4


@dataclass
class Prefilled:
    """Rows that have read their prompts.

    Attributes:
        cache: of L positions, filled by the model.
        mask: (B, L) bool, False at padding.
        positions: (..., B, 1), of the last prompt token.
        logits: (B, V), of the first new token.
        prompts: (B, L) token numbers, padding included.
        options: for every later forward pass.
    """

    cache: Any
    mask: torch.Tensor
    positions: torch.Tensor
    logits: torch.Tensor
    prompts: torch.Tensor
    options: dict[str, Any]


class CannotDecodeError(Exception):
    """The model is none of those that this module decodes; the message says why."""


@torch.inference_mode()
def prefill(model: Any, inputs: Any) -> Prefilled:
    """Read the prompts of a batch.

    generate itself prepares the inputs (positions, cache, options), so that every architecture's
    own preparation counts; its loop is replaced (`custom_generate`).

    Raises:
        CannotDecodeError: generate has to do it.
    """
    found: list[Prefilled] = []

    def read(
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **options: Any,
    ) -> torch.Tensor:
        if model.config.is_encoder_decoder:
            raise CannotDecodeError("it has an encoder and a decoder")
        if len(logits_processor):
            raise CannotDecodeError("its generation config bars or forces tokens")
        if options.get("position_ids") is None:
            raise CannotDecodeError("it takes no position_ids")
        first = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **options)
        answer = model(**first, return_dict=True)
        cache = answer.past_key_values
        if not can_hold(cache) or cache.get_seq_length() != input_ids.shape[1]:
            raise CannotDecodeError("its cache does not keep every position of the prompt")
        mask = options.get("attention_mask")
        found.append(
            Prefilled(
                cache=cache,
                mask=torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool(),
                positions=options["position_ids"][..., -1:],
                logits=answer.logits[:, -1].float(),
                prompts=input_ids,
                options={name: options[name] for name in _KEPT_OPTIONS if name in options},
            )
        )
        return input_ids

    model.generate(**inputs, max_new_tokens=1, do_sample=False, custom_generate=read)
    return found[0]


@dataclass(frozen=True)
class Written:
    """A finished row: its token numbers up to and with its end token, and whether it has one."""

    row: int
    tokens: list[int]
    ended: bool


@dataclass
class _State:
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
    def beginning(cls, group: Prefilled, seeds: list[int], sampling: Sampling) -> _State:
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

    def only(self, rows: list[int], room: int) -> _State:
        """The state of some of the rows, without positions that are padding in all of them."""
        chosen = torch.tensor(rows, device=self.alive.device)
        mask = self.mask[chosen]
        dropped = _padding(mask)
        mask = mask[:, dropped:]
        return _State(
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

    def with_rows(self, other: _State, room: int) -> _State:
        """The state of these rows and others behind them; both caches are emptied."""
        dropped = _padding(self.mask)
        mine, theirs = self.mask[:, dropped:], other.mask
        length = max(mine.shape[1], theirs.shape[1])
        pad = torch.nn.functional.pad
        masks = [pad(mask, (length - mask.shape[1], 0)) for mask in (mine, theirs)]
        both = self.seen is not None and other.seen is not None
        return _State(
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
        self._state: _State | None = None
        self._padded = False
        # One entry a row of the state: the caller's number, whether it was not returned yet, and
        # the tokens that it may still write.
        self._rows: list[int] = []
        self._writing: list[bool] = []
        self._left: list[int] = []

    def __len__(self) -> int:
        """Rows that were not returned yet."""
        return sum(self._writing)

    @torch.inference_mode()
    def join(self, rows: list[int], seeds: list[int], group: Prefilled) -> None:
        """Add rows that have read their prompts; `group` is emptied.

        Args:
            rows: the caller's numbers for them.
            seeds: one a row.
        """
        self._leave()
        most = self._sampling.max_new_tokens
        fresh = _State.beginning(group, seeds, self._sampling)
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

    def _step(self, state: _State) -> None:
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

    def _take(self, state: _State, logits: torch.Tensor) -> None:
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

    def _look(self, state: _State) -> list[Written]:
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


def _padding(mask: torch.Tensor) -> int:
    """Positions at the left that are padding in every row of a (B, L) mask."""
    return int(mask.int().argmax(1).min())
