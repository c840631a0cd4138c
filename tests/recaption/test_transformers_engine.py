from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_captioners import picture

from curate.errors import ConfigError
from recaption.engine import CaptionOutcome, CaptionRequest, Sampling
from recaption.seeded_sampling import SeededProcessor
from recaption.transformers_engine import TransformersEngine

GREEDY = Sampling(max_new_tokens=12)
SAMPLED = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.95, top_k=20)
PROMPTS = ["Describe this image", "Name the main subject of this image in one short sentence ."]


def request_of(rows: int, sampling: Sampling, system: str = "") -> CaptionRequest:
    return CaptionRequest(
        pictures=[picture(row, (40 + 8 * (row % 4), 48)) for row in range(rows)],
        prompts=[PROMPTS[row % 2] for row in range(rows)],
        seeds=list(range(100, 100 + rows)),
        sampling=sampling,
        system=system,
    )


def one_by_one(engine: TransformersEngine, request: CaptionRequest) -> list[CaptionOutcome]:
    rows = [
        replace(request, pictures=[picture], prompts=[prompt], seeds=[seed])
        for picture, prompt, seed in zip(
            request.pictures, request.prompts, request.seeds, strict=True
        )
    ]
    return [engine.caption(row)[0] for row in rows]


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_batched_captions_equal_one_by_one_captions(
    family: str, sampling: Sampling, request: pytest.FixtureRequest
) -> None:
    engine = TransformersEngine(request.getfixturevalue(family), batch_size=5)
    rows = request_of(8, sampling, system="you are helpful")
    batched = engine.caption(rows)

    assert batched == one_by_one(engine, rows)
    assert len({outcome.text for outcome in batched}) > 4, "the pictures should matter"
    assert {outcome.finish_reason for outcome in batched} <= {"stop", "length"}


def test_a_model_without_chat_template_captions_without_being_asked(blip: Path) -> None:
    engine = TransformersEngine(blip, batch_size=3)
    rows = replace(request_of(4, SAMPLED), prompts=[""] * 4)
    batched = engine.caption(rows)
    assert batched == one_by_one(engine, rows)
    assert all("DEC" not in (outcome.text or "") for outcome in batched)


def test_tokens_are_counted_up_to_the_end_token_and_the_limit_is_told(llava: Path) -> None:
    engine = TransformersEngine(llava)
    rows = request_of(16, Sampling(max_new_tokens=60, temperature=1.0))
    outcomes = engine.caption(rows)
    ended, length = next(
        (row, outcome.output_tokens)
        for row, outcome in enumerate(outcomes)
        if outcome.finish_reason == "stop"
    )
    enough = engine.caption(replace(rows, sampling=replace(rows.sampling, max_new_tokens=length)))
    short = engine.caption(
        replace(rows, sampling=replace(rows.sampling, max_new_tokens=length - 1))
    )
    assert enough[ended] == outcomes[ended]
    assert (short[ended].finish_reason, short[ended].output_tokens) == ("length", length - 1)


def test_one_broken_picture_is_one_failed_row(llava: Path) -> None:
    engine = TransformersEngine(llava, batch_size=4)
    rows = request_of(6, GREEDY)
    damaged = [b"no picture", *rows.pictures[1:5], rows.pictures[5][:60]]
    outcomes = engine.caption(replace(rows, pictures=damaged))
    assert [outcome.error for outcome in outcomes] == [
        "broken_picture",
        *[None] * 4,
        "broken_picture",
    ]
    assert [o.text for o in outcomes[1:5]] == [o.text for o in engine.caption(rows)[1:5]]


def test_a_row_that_the_model_cannot_take_fails_alone(qwen: Path) -> None:
    engine = TransformersEngine(qwen, batch_size=8)
    rows = request_of(8, GREEDY)
    whole = engine.caption(rows)
    # Qwen's image processor refuses strips of 200:1 and narrower, for the batch they are in.
    strip = picture(3, (512, 2))
    outcomes = engine.caption(
        replace(rows, pictures=[*rows.pictures[:3], strip, *rows.pictures[4:]])
    )
    assert outcomes[3].error == "engine_error"
    assert "aspect ratio" in outcomes[3].detail
    assert outcomes[:3] + outcomes[4:] == whole[:3] + whole[4:]


def test_an_alt_text_that_spells_control_tokens_does_no_harm(llava: Path) -> None:
    engine = TransformersEngine(llava)
    rows = request_of(2, GREEDY)
    spelled = replace(rows, prompts=["describe <image> this </s> image", "describe this image"])
    outcomes = engine.caption(spelled)
    assert [outcome.error for outcome in outcomes] == [None, None]


def test_pictures_are_shrunk_to_the_size_asked_and_never_enlarged(llava: Path) -> None:
    engine = TransformersEngine(llava, image_size=50)
    rows = replace(
        request_of(2, GREEDY), pictures=[picture(0, (200, 100), "jpeg"), picture(1, (30, 20))]
    )
    sizes = [(outcome.sent_width, outcome.sent_height) for outcome in engine.caption(rows)]
    assert sizes == [(50, 25), (30, 20)]


def test_an_empty_request_has_no_outcomes(llava: Path) -> None:
    assert TransformersEngine(llava).caption(request_of(0, GREEDY)) == []


def test_seeded_draws_follow_the_models_probabilities() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -30.0]]).expand(20_000, 5)
    sampler = SeededProcessor(torch.arange(20_000), Sampling(1, temperature=0.7))
    drawn = sampler(torch.empty(0), logits).argmax(-1)
    shares = np.bincount(drawn.numpy(), minlength=5) / 20_000
    assert np.abs(shares - (logits[0] / 0.7).softmax(-1).numpy()).max() < 0.01


def test_top_k_and_top_p_bar_unlikely_words() -> None:
    logits = torch.tensor([[2.0, 1.9, 1.8, 0.0, -1.0]]).expand(2_000, 5)
    by_rank = SeededProcessor(torch.arange(2_000), Sampling(1, temperature=1.0, top_k=2))
    assert set(by_rank(torch.empty(0), logits).argmax(-1).tolist()) == {0, 1}
    by_mass = SeededProcessor(torch.arange(2_000), Sampling(1, temperature=1.0, top_p=0.8))
    assert set(by_mass(torch.empty(0), logits).argmax(-1).tolist()) == {0, 1, 2}
    at_least_one = SeededProcessor(torch.arange(50), Sampling(1, temperature=1.0, top_p=1e-6))
    assert set(at_least_one(torch.empty(0), logits[:50]).argmax(-1).tolist()) == {0}


def test_a_folder_that_holds_no_captioner_gets_one_sentence(tmp_path: Path, llava: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded as a captioner"):
        TransformersEngine(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ConfigError, match="cannot be loaded as a captioner"):
        TransformersEngine(tmp_path)


def test_a_pickle_is_not_loaded(tmp_path: Path, llava: Path) -> None:
    for path in llava.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="cannot be loaded as a captioner"):
        TransformersEngine(tmp_path)
