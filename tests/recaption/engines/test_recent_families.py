"""The families that people run today, as tiny models of their real classes and processors."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_recent
import torch
from test_transformers_engine import one_by_one, request_of

from recaption.engines.protocol import Sampling
from recaption.engines.transformers.engine import TransformersEngine

FAMILIES = ["qwen35", "internvl35", "gemma4"]  # Qwen3-VL stands in test_transformers_engine


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    build = {family: getattr(tiny_recent, f"build_{family}") for family in FAMILIES}
    return {family: make(tmp_path_factory.mktemp(family)) for family, make in build.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_of_pictures_and_texts_are_captioned_as_rows_alone(
    family: str, folders: dict[str, Path]
) -> None:
    torch.set_num_threads(1)
    engine = TransformersEngine(folders[family], batch_size=5)
    # Gemma 4's window of 90 positions ends within these texts.
    rows = request_of(
        6, Sampling(max_new_tokens=24, temperature=1.0, top_p=0.95), "you are helpful"
    )
    rows = replace(rows, pictures=[*rows.pictures[:5], None])
    outcomes = engine.caption(rows)
    assert outcomes == one_by_one(engine, rows)
    assert [outcome.error for outcome in outcomes] == [None] * 6
    assert len({outcome.text for outcome in outcomes}) == 6
    tokens = [outcome.prompt_tokens for outcome in outcomes]
    assert min(tokens[:5]) > tokens[5] + 4, "a picture's tokens count"
    if family == "gemma4":  # any picture is about as many tokens as its budget allows
        assert max(tokens) + 24 > 90


def test_a_family_that_thinks_by_default_is_told_not_to(folders: dict[str, Path]) -> None:
    from transformers import AutoProcessor

    prompts = {}
    for family in ("qwen35", "gemma4"):
        preparer = TransformersEngine(folders[family])._preparer._inputs
        prompts[family] = preparer._render_chat("Describe this image", "", True)
    assert prompts["qwen35"].endswith("assistant\n<think>\n\n</think>\n\n")
    assert "<|think|>" not in prompts["gemma4"]
    processor = AutoProcessor.from_pretrained(folders["qwen35"])
    turns = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    asked = processor.apply_chat_template(turns, add_generation_prompt=True)
    assert asked.endswith("<think>\n"), "left alone it would think"
