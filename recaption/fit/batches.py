"""Pairs as model inputs: the prompt exactly as the engine asks it, then the caption to learn."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from curate.scoring.models.chat import NO_THINKING
from recaption.engines.pictures import decode
from recaption.fit.pairs import Pairs
from recaption.fit.settings import ALT
from recaption.prompts.templates import PromptTemplate

IGNORED = -100
"""Label of positions that are not learnt, as torch's cross-entropy has it."""

_ORDER, _CHANGES = 0, 1  # streams of draws
_MARK = "caption"


@dataclass(frozen=True)
class Batch:
    """B pairs.

    Attributes:
        inputs: what the model takes; input_ids (B, P + L) hold the prompt, padded on the left, and
            the caption, padded on the right.
        wanted: (B, L) int64, the caption's tokens and its end token; IGNORED behind it.
    """

    inputs: dict[str, Tensor]
    wanted: Tensor

    @property
    def tokens(self) -> int:
        """Number of tokens that are learnt."""
        return int((self.wanted != IGNORED).sum())

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch({k: v.to(device) for k, v in self.inputs.items()}, self.wanted.to(device))


class Batches:
    """Draws batches of some rows of `pairs`; every draw is a function of (seed, step) alone."""

    def __init__(
        self,
        processor: Any,
        pairs: Pairs,
        rows: NDArray[np.int64],
        templates: dict[str, PromptTemplate],
        image_size: int,
        seed: int = 0,
        augment: float = 0.0,
    ) -> None:
        self.processor = processor
        self.pairs = pairs
        self.rows = rows
        self.image_size = image_size
        self.seed = seed
        self.augment = augment
        kinds = {pairs.rows[i].kind for i in rows.tolist()}
        self.prompts = {k: render_prompt(processor, templates.get(k)) for k in sorted(kinds)}
        self.captions = caption_tokens(processor, pairs, templates)

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, n: int) -> Batches:
        """The same with its first n rows alone."""
        fewer = copy.copy(self)
        fewer.rows = self.rows[:n]
        return fewer

    def step(self, step: int, size: int, parts: int) -> list[Batch]:
        """The `parts` batches of `size` pairs of optimiser step `step`: every row comes once in
        an epoch, in an order of the epoch's own."""
        whole = size * parts
        places = np.arange(step * whole, (step + 1) * whole)
        drawn = [
            self.rows[_order(len(self.rows), self.seed, int(p) // len(self.rows))[p % len(self)]]
            for p in places
        ]
        rng = np.random.default_rng([self.seed, _CHANGES, step])
        return [self._batch(drawn[i : i + size], rng) for i in range(0, whole, size)]

    def in_order(self, size: int) -> list[Batch]:
        """All rows once, unchanged, for measuring."""
        rows = self.rows.tolist()
        return [self._batch(rows[i : i + size], None) for i in range(0, len(rows), size)]

    def _batch(self, rows: Sequence[int], rng: np.random.Generator | None) -> Batch:
        shown = [self.pairs.rows[i] for i in rows]
        images = [decode(self.pairs.pictures[row.picture], self.image_size) for row in shown]
        if rng is not None and self.augment:
            images = [changed(image, self.augment, rng) for image in images]
        inputs = prompt_inputs(self.processor, images, [self.prompts[row.kind] for row in shown])
        captions = [torch.tensor(self.captions[i]) for i in rows]
        wanted = torch.nn.utils.rnn.pad_sequence(captions, True, IGNORED)
        return Batch(_with_captions(inputs, wanted, self.processor.tokenizer.pad_token_id), wanted)


def render_prompt(processor: Any, template: PromptTemplate | None) -> str:
    """The chat up to the caption's first word, as the engine renders it; None shows the picture
    and asks nothing."""
    return str(
        processor.apply_chat_template(
            _turns(template), add_generation_prompt=True, tokenize=False, **NO_THINKING
        )
    )


def prompt_inputs(
    processor: Any, images: list[Image.Image], prompts: list[str]
) -> dict[str, Tensor]:
    """Processor outputs of rendered chats with one picture each, padded on the left."""
    start = processor.tokenizer.bos_token
    # A template that writes the start token itself must not get a second one.
    options = {"add_special_tokens": False} if start and prompts[0].startswith(start) else {}
    return dict(
        processor(
            images=[[image] for image in images],
            text=prompts,
            padding=True,
            return_tensors="pt",
            **options,
        )
    )


def caption_tokens(
    processor: Any, pairs: Pairs, templates: dict[str, PromptTemplate]
) -> list[list[int]]:
    """Token ids of every row's caption and of the end token, as the model would generate them."""
    tokenizer = processor.tokenizer
    gaps = {kind: _gap(processor, templates.get(kind)) for kind in {r.kind for r in pairs.rows}}
    texts = [gaps[row.kind] + row.caption for row in pairs.rows]
    encoded = tokenizer(texts, add_special_tokens=False).input_ids if texts else []
    return [[*ids, tokenizer.eos_token_id] for ids in encoded]


def changed(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """The picture a little moved, zoomed, brighter or darker: what no caption tells of."""
    zoom, right, down, light, contrast = (strength * rng.uniform(-1, 1, 5)).tolist()
    width, height = image.size
    w, h = width * (1 + 0.08 * zoom), height * (1 + 0.08 * zoom)
    left = (width - w) / 2 + 0.06 * width * right
    top = (height - h) / 2 + 0.06 * height * down
    box = (left, top, left + w, top + h)
    # Outside the picture its own border goes on: a black frame would be something to caption.
    margin = int(np.ceil(0.11 * max(width, height)))
    edged = Image.fromarray(
        np.pad(np.asarray(image), ((margin,) * 2, (margin,) * 2, (0, 0)), "edge")
    )
    box = tuple(side + margin for side in box)
    image = edged.transform((width, height), Image.Transform.EXTENT, box, Image.Resampling.BICUBIC)
    image = ImageEnhance.Brightness(image).enhance(1 + 0.2 * light)
    return ImageEnhance.Contrast(image).enhance(1 + 0.2 * contrast)


def _turns(template: PromptTemplate | None) -> list[dict[str, Any]]:
    content: list[dict[str, str]] = [{"type": "image"}]
    if template is None:
        return [{"role": "user", "content": content}]
    content.append({"type": "text", "text": template.render([None])[0]})
    turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
    system = template.render_system()
    if system:
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return turns


def _gap(processor: Any, template: PromptTemplate | None) -> str:
    """What a chat writes between prompt and answer, such as the space behind "ASSISTANT:"."""
    if template is None or template.name == ALT:
        return ""
    turns = [*_turns(template), {"role": "assistant", "content": [{"type": "text", "text": _MARK}]}]
    whole = str(processor.apply_chat_template(turns, tokenize=False))
    prompt = render_prompt(processor, template)
    if not whole.startswith(prompt) or _MARK not in whole[len(prompt) :]:
        return ""
    return whole[len(prompt) :].partition(_MARK)[0]


def _with_captions(inputs: dict[str, Tensor], wanted: Tensor, pad: int) -> dict[str, Tensor]:
    """Inputs of the prompts, lengthened by the captions."""
    shape = inputs["input_ids"].shape
    known = wanted != IGNORED
    longer = {}
    for name, tensor in inputs.items():
        if name == "input_ids":
            tensor = torch.cat([tensor, wanted.masked_fill(~known, pad)], 1)
        elif name == "attention_mask":
            tensor = torch.cat([tensor, known.to(tensor.dtype)], 1)
        elif tensor.shape == shape:  # marks of image tokens; captions have none
            tensor = torch.cat([tensor, torch.zeros_like(wanted, dtype=tensor.dtype)], 1)
        longer[name] = tensor
    return longer


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(n)
