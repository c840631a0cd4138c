"""What a captioner is shown and what it has to say, batch by batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_captioners import picture

from recaption.fit.batches import IGNORED, Batches, changed
from recaption.fit.pairs import Pairs
from recaption.prompts.templates import BUILT_IN

CAPTIONS = ["a red circle", "a small blue square on a plain background", "the green triangle"]
ASSISTANT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}"
    "{% else %}assistant : {{ m['content'][0]['text'] }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)


@pytest.fixture(scope="module")
def processor(llava: Path) -> Any:
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(llava)


def batches(processor: Any, augment: float = 0.0) -> Batches:
    pairs = Pairs()
    for i, caption in enumerate(CAPTIONS):
        pairs.add(f"{i}", picture(i), [("short", caption)])
    return Batches(processor, pairs, np.arange(3), dict(BUILT_IN), 0, seed=1, augment=augment)


@pytest.mark.parametrize("template", [None, ASSISTANT], ids=["plain", "with a gap"])
def test_the_caption_and_its_end_alone_are_learnt_behind_the_prompt(
    template: str | None, processor: Any
) -> None:
    own = processor.chat_template
    processor.chat_template = template or own
    try:
        made = batches(processor)
        (batch,) = made.in_order(3)
    finally:
        processor.chat_template = own
    tokenizer = processor.tokenizer
    length = batch.wanted.shape[1]
    for row, caption in enumerate(CAPTIONS):
        known = batch.wanted[row] != IGNORED
        ids = batch.wanted[row][known].tolist()
        assert tokenizer.decode(ids) == f"{caption} {tokenizer.eos_token}"
        assert batch.inputs["input_ids"][row, -length:][known].tolist() == ids
        assert batch.inputs["attention_mask"][row, -length:].tolist() == known.int().tolist()
        prompt = tokenizer.decode(batch.inputs["input_ids"][row, :-length])
        assert prompt.rstrip().endswith("assistant :")
        assert "main subject" in prompt
    assert batch.tokens == sum(len(caption.split()) + 1 for caption in CAPTIONS)


def test_an_epoch_shows_every_pair_once_in_an_order_of_its_own(processor: Any) -> None:
    made = batches(processor, augment=0.5)
    shown = [
        tuple(made.processor.tokenizer.decode(row[row != IGNORED]) for row in part.wanted)
        for step in range(8)
        for part in made.step(step, 1, 3)
    ]
    epochs = [shown[i : i + 3] for i in range(0, 24, 3)]
    assert all(len(set(epoch)) == 3 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    again, first = made.step(5, 3, 1)[0], made.step(5, 3, 1)[0]
    assert again.inputs["pixel_values"].equal(first.inputs["pixel_values"])
    assert not again.inputs["pixel_values"].equal(made.step(6, 3, 1)[0].inputs["pixel_values"])


def test_changed_pictures_keep_what_a_caption_tells() -> None:
    pixels = np.full((40, 60, 3), 200, np.uint8)
    pixels[5:15, 5:15] = (220, 30, 30)  # a red square, top left
    image = Image.fromarray(pixels)
    still = changed(image, 0.0, np.random.default_rng(0))
    assert np.array_equal(np.asarray(still), pixels)
    moved = set()
    for seed in range(20):
        other = np.asarray(changed(image, 1.0, np.random.default_rng(seed))).astype(int)
        assert other.shape == pixels.shape
        down, right = np.nonzero(other[..., 0] - other[..., 1] > 60)
        assert 60 <= len(down) <= 140, "the square is as large as it was, or nearly"
        assert down.max() < 20
        assert right.max() < 22, "still top left"
        corner = other[-6:, -6:].reshape(-1, 3)
        assert (corner.max(1) - corner.min(1)).max() <= 3, "the ground is grey up to its border"
        moved.add((down.min(), right.min()))
    assert len(moved) > 3
