"""Rows read their prompts: every architecture's own preparation, without its loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from recaption.engines.transformers.roomy_cache import can_hold, window_of

# Options of generate that every later forward pass needs again.
_KEPT_OPTIONS = ("logits_to_keep", "output_attentions", "output_hidden_states")


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
        window: positions that the narrowest sliding window sees; while prompt and text are no
            longer, it is none. None where no layer has one.
    """

    cache: Any
    mask: torch.Tensor
    positions: torch.Tensor
    logits: torch.Tensor
    prompts: torch.Tensor
    options: dict[str, Any]
    window: int | None


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
        cache: Any = getattr(answer, "past_key_values", None)
        if not can_hold(cache, input_ids.shape[1]):
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
                window=window_of(cache),
            )
        )
        return input_ids

    model.generate(**inputs, max_new_tokens=1, do_sample=False, custom_generate=read)
    return found[0]
