"""vLLM in this process; where it is installed (docs/engines.md), on tiny models."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_captioners import build_qwen25vl, picture

from curate.base.errors import ConfigError
from recaption.captioning.settings import RecaptionSettings
from recaption.engines.protocol import CaptionRequest, Sampling
from recaption.engines.registry import identify, open_engine

HERE = importlib.util.find_spec("vllm") is not None


@pytest.mark.skipif(HERE, reason="vllm is installed here")
def test_without_vllm_one_sentence_says_what_to_do(llava: Path) -> None:
    settings = RecaptionSettings(captioner=str(llava), engine="vllm")
    captioner = identify(settings)
    assert captioner.engine == "vllm"
    with pytest.raises(ConfigError, match=r"needs the package vllm.*docs/engines\.md"):
        open_engine(settings, captioner, Sampling(2), settings)


@pytest.fixture
def small_vllm(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Options with which vLLM runs a tiny model in this process, on a CPU too."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    return {"enforce_eager": True, "max_model_len": 256}


@pytest.mark.skipif(not HERE, reason="needs vllm, which pins a torch of its own")
def test_rows_of_vllm_have_one_outcome_each_and_their_own_draws(
    tmp_path: Path, small_vllm: dict
) -> None:
    from recaption.engines.transformers.engine import TransformersEngine
    from recaption.engines.vllm import VllmEngine

    folder = build_qwen25vl(tmp_path, heads=1)  # vLLM's attention wants heads of 32 numbers
    engine = VllmEngine(folder, batch_size=4, precision="fp32", options=small_vllm)
    rows = CaptionRequest(
        pictures=[b"none", *(picture(row, (40 + 24 * row, 48)) for row in range(4)), None],
        prompts=["Describe this image"] * 6,
        seeds=list(range(6)),
        sampling=Sampling(max_new_tokens=8, temperature=1.0),
    )
    outcomes = engine.caption(rows)
    assert [outcome.error for outcome in outcomes] == ["broken_picture", *[None] * 5]
    assert all(outcome.output_tokens <= 8 for outcome in outcomes[1:])
    single = replace(rows, pictures=rows.pictures[2:3], prompts=rows.prompts[2:3], seeds=[2])
    assert engine.caption(single) == outcomes[2:3]

    strip = picture(3, (512, 2))  # Qwen's image processor refuses it
    refused = replace(rows, pictures=[*rows.pictures[:3], strip, *rows.pictures[4:]])
    errors = [outcome.error for outcome in engine.caption(refused)]
    assert errors == ["broken_picture", None, None, "engine_error", None, None]

    greedy = replace(rows, sampling=Sampling(max_new_tokens=8))
    plain = TransformersEngine(folder).caption(greedy)
    assert [(o.text, o.prompt_tokens, o.output_tokens) for o in engine.caption(greedy)] == [
        (o.text, o.prompt_tokens, o.output_tokens) for o in plain
    ]
