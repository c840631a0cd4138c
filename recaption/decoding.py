"""Rows that generate together: each leaves when its text ends, and others take the free places.

`model.generate` holds a whole batch until its longest text ends; captions differ in length by a
factor of three, so half of its work is for rows that are done. Here a small group of rows reads its
prompts while the others wait, and joins them for the steps that follow.

For decoder-only models whose cache keeps every position (LLaVA, Qwen-VL, SmolVLM, Idefics3,
InternVL, PaliGemma and their like). `prefill` says whether a model is one.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        self._clear()

    def __len__(self) -> int:
        """Rows that still write."""
        return sum(self._writing)

    def join(self, rows: list[int], seeds: list[int], group: Prefilled) -> None:
        """Add rows that have read their prompts; `group` is emptied.

        Args:
            rows: the caller's numbers for them.
            seeds: one a row.
        """
        device = group.logits.device
        self._leave()
        if self._rows:
            dropped = int(self._mask.int().argmax(1).min())
            length = max(self._mask.shape[1] - dropped, group.mask.shape[1])
            parts = [(self._cache, None, dropped), (group.cache, None, 0)]
            mask = _right_aligned_masks(self._mask[:, dropped:], group.mask, length)
        else:
            length, mask = group.mask.shape[1], group.mask
            parts = [(group.cache, None, 0)]
        self._cache = joined(parts, length, self._sampling.max_new_tokens)
        count = len(rows)
        fresh = {
            "_positions": group.positions,
            "_seeds": torch.tensor(seeds, dtype=torch.int64, device=device),
            "_steps": torch.zeros(count, dtype=torch.int64, device=device),
            "_alive": torch.ones(count, dtype=torch.bool, device=device),
            "_tokens": torch.zeros(
                (count, self._sampling.max_new_tokens), dtype=torch.int64, device=device
            ),
            "_next": torch.zeros(count, dtype=torch.int64, device=device),
        }
        if self._sampling.repetition_penalty != 1.0:
            seen = torch.zeros_like(group.logits, dtype=torch.bool)
            # Padding is no word that was said.
            fresh["_seen"] = seen.scatter(1, group.prompts, group.mask)
        for name, tensor in fresh.items():
            here = getattr(self, name)
            along = -2 if name == "_positions" else 0
            setattr(self, name, tensor if here is None else torch.cat([here, tensor], dim=along))
        self._mask, self._options = mask, group.options
        self._padded = not bool(mask.all())
        self._rows += rows
        self._writing += [True] * count
        self._left += [self._sampling.max_new_tokens] * count
        # The first token comes out of the prompt's logits, for the new rows alone.
        self._take(group.logits, slice(len(self._rows) - count, None))

    @torch.inference_mode()
    def fly(self) -> list[Written]:
        """Write tokens until rows end; those rows."""
        looked = 0
        while True:
            # A row's last step is known beforehand, so a look behind it is never wasted.
            looked += 1
            least = min(left for left, on in zip(self._left, self._writing, strict=True) if on)
            if looked % self._steps_between_looks == 0 or least <= 0:
                ended = self._look()
                if ended:
                    return ended
            self._step()

    def _step(self) -> None:
        self._positions = self._positions + 1
        one_more = self._mask.new_ones((len(self._rows), 1))
        self._mask = torch.cat([self._mask, one_more], dim=1)
        inputs = self._model.prepare_inputs_for_generation(
            self._next[:, None],
            next_sequence_length=1,
            past_key_values=self._cache,
            attention_mask=self._mask.long() if self._padded else None,
            position_ids=self._positions,
            use_cache=True,
            **self._options,
        )
        answer = self._model(**inputs, return_dict=True)
        self._take(answer.logits[:, -1].float(), slice(None))

    def _take(self, logits: torch.Tensor, rows: slice) -> None:
        """Choose the next token of `rows` from (B, V) float32 logits."""
        if self._seen is not None:
            penalty, seen = self._sampling.repetition_penalty, self._seen[rows]
            # Keskar et al. 2019, section 4.1, with transformers' rule for negative logits.
            harsher = torch.where(logits < 0, logits * penalty, logits / penalty)
            logits = torch.where(seen, harsher, logits)
        if self._sampler is None:
            chosen = logits.argmax(-1)
        else:
            chosen = self._sampler.draw(logits, self._seeds[rows], self._steps[rows] + 1)
        alive = self._alive[rows].clone()
        steps = self._steps[rows]
        last = self._sampling.max_new_tokens - 1
        place = steps.clamp(max=last)[:, None]
        before = self._tokens[rows].gather(1, place)
        self._tokens[rows] = self._tokens[rows].scatter(
            1, place, torch.where(alive[:, None], chosen[:, None], before)
        )
        self._next[rows] = chosen
        if self._seen is not None:
            self._seen[rows] = self._seen[rows].scatter(1, chosen[:, None], True)
        self._alive[rows] = alive & ~torch.isin(chosen, self._end_tokens) & (steps < last)
        self._steps[rows] += alive
        for row in range(*rows.indices(len(self._left))):
            self._left[row] -= 1

    def _look(self) -> list[Written]:
        """Rows that ended since the last look."""
        alive = self._alive.tolist()
        ended = [n for n, on in enumerate(self._writing) if on and not alive[n]]
        if not ended:
            return []
        lengths = self._steps[ended].tolist()
        tokens = self._tokens[ended].tolist()
        last = torch.tensor([row[length - 1] for row, length in zip(tokens, lengths, strict=True)])
        stopped = torch.isin(last, self._end_tokens.cpu()).tolist()
        for number in ended:
            self._writing[number] = False
        return [
            Written(self._rows[number], row[:length], stop)
            for number, row, length, stop in zip(ended, tokens, lengths, stopped, strict=True)
        ]

    def shrink(self) -> None:
        """Give up the places of rows that ended, where that saves at least a quarter."""
        if 4 * len(self) <= 3 * len(self._rows):
            self._leave()

    def _leave(self) -> None:
        """Drop the rows that ended."""
        if all(self._writing):
            return
        keep = [number for number, on in enumerate(self._writing) if on]
        if not keep:
            self._clear()
            return
        rows = torch.tensor(keep, device=self._alive.device)
        mask = self._mask[rows]
        dropped = int(mask.int().argmax(1).min())
        self._mask = mask[:, dropped:]
        length = self._mask.shape[1]
        # The last chosen token is not in the cache yet, and its mask column comes with its step.
        self._cache = joined([(self._cache, rows, dropped)], length, max(self._left))
        self._positions = self._positions.index_select(-2, rows)
        for name in ("_seeds", "_steps", "_alive", "_tokens", "_next", "_seen"):
            tensor = getattr(self, name)
            setattr(self, name, None if tensor is None else tensor[rows])
        self._padded = not bool(self._mask.all())
        self._rows = [self._rows[number] for number in keep]
        self._left = [self._left[number] for number in keep]
        self._writing = [True] * len(keep)

    def _clear(self) -> None:
        self._rows: list[int] = []
        self._writing: list[bool] = []
        self._left: list[int] = []
        self._cache: Any = None
        self._options: dict[str, Any] = {}
        self._padded = False
        empty: Any = None
        self._mask = self._positions = self._seeds = self._steps = empty
        self._alive = self._tokens = self._next = self._seen = empty


def _right_aligned_masks(one: torch.Tensor, other: torch.Tensor, length: int) -> torch.Tensor:
    pad = torch.nn.functional.pad
    return torch.cat([pad(mask, (length - mask.shape[1], 0)) for mask in (one, other)])
