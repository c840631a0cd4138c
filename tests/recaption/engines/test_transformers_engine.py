from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tiny_families
import torch
from tiny_captioners import picture

from curate.base.errors import ConfigError
from recaption.engines.protocol import CaptionOutcome, CaptionRequest, Sampling
from recaption.engines.sampling import SeededProcessor
from recaption.engines.transformers.engine import TransformersEngine
from recaption.prompts.templates import NATIVE

GREEDY = Sampling(max_new_tokens=12)
SAMPLED = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.95, top_k=20)
PENALISED = Sampling(max_new_tokens=8, repetition_penalty=1.3)
PROMPTS = ["Describe this image", "Name the main subject of this image in one short sentence ."]
FAMILIES = [
    "llava", "qwen25vl", "qwen3vl", "smolvlm", "idefics3", "internvl", "paligemma", "gemma3",
    "blip", "git", "florence2",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny products in many threads wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def engine_of(
    tmp_path_factory: pytest.TempPathFactory, llava: Path, qwen: Path, blip: Path
) -> Callable[[str], TransformersEngine]:
    """The engine of a family, opened once."""
    folders = {"llava": llava, "qwen25vl": qwen, "blip": blip}

    @cache
    def opened(family: str) -> TransformersEngine:
        folder = folders.get(family) or getattr(tiny_families, f"build_{family}")(
            tmp_path_factory.mktemp(family)
        )
        return TransformersEngine(folder, batch_size=5)

    return opened


def request_of(
    rows: int, sampling: Sampling, system: str = "", family: str = "llava"
) -> CaptionRequest:
    """Uneven prompts and pictures of uneven sizes and shapes."""
    prompts = PROMPTS
    if family in NATIVE:
        prompts = [template.text for template in NATIVE[family].values()]
    return CaptionRequest(
        pictures=[picture(row, (40 + 24 * (row % 4), 48 + 16 * (row % 3))) for row in range(rows)],
        prompts=[prompts[row % len(prompts)] for row in range(rows)],
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


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, PENALISED], ids=["greedy", "sampled", "rep"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batched_captions_equal_one_by_one_captions(
    family: str, sampling: Sampling, engine_of: Callable[[str], TransformersEngine]
) -> None:
    engine = engine_of(family)
    system = "you are helpful" if family not in NATIVE else ""
    rows = request_of(8, sampling, system, family)
    batched = engine.caption(rows)

    assert batched == one_by_one(engine, rows)
    assert [outcome.error for outcome in batched] == [None] * 8
    assert {outcome.finish_reason for outcome in batched} <= {"stop", "length"}
    assert all(outcome.latency_seconds > 0 for outcome in batched)
    if sampling is SAMPLED:
        assert len({outcome.text for outcome in batched}) > 4, "the pictures should matter"


def test_texts_longer_than_a_sliding_window_are_the_same_in_any_batch(
    engine_of: Callable[[str], TransformersEngine],
) -> None:
    engine = engine_of("gemma3")
    rows = request_of(8, Sampling(max_new_tokens=60, temperature=1.0))
    outcomes = engine.caption(rows)
    assert max(outcome.prompt_tokens + outcome.output_tokens for outcome in outcomes) > 56
    assert outcomes == one_by_one(engine, rows)


def test_rows_whose_texts_end_early_do_not_disturb_the_others(
    engine_of: Callable[[str], TransformersEngine],
) -> None:
    engine = engine_of("llava")
    rows = request_of(40, Sampling(max_new_tokens=40, temperature=1.5))
    outcomes = engine.caption(rows)
    lengths = [outcome.output_tokens for outcome in outcomes]
    assert min(lengths) < 10 < 30 < max(lengths), "texts should end at different times"
    assert outcomes == one_by_one(engine, rows)


def test_texts_without_pictures_stand_among_rows_with_pictures(
    engine_of: Callable[[str], TransformersEngine],
) -> None:
    for family in ("llava", "qwen25vl", "smolvlm", "gemma3"):
        engine = engine_of(family)
        rows = request_of(6, GREEDY)
        mixed = replace(rows, pictures=[rows.pictures[0], None, None, *rows.pictures[3:5], None])
        outcomes = engine.caption(mixed)
        assert outcomes == one_by_one(engine, mixed)
        assert [outcome.error for outcome in outcomes] == [None] * 6
        sizes = [outcome.sent_width for outcome in outcomes]
        assert sizes == [40, None, None, 112, 40, None]
        assert outcomes[1].prompt_tokens < outcomes[3].prompt_tokens


def test_a_captioner_without_chat_template_says_that_it_needs_a_picture(
    engine_of: Callable[[str], TransformersEngine],
) -> None:
    rows = replace(request_of(2, GREEDY, family="blip"), pictures=[None, picture(1)])
    first, second = engine_of("blip").caption(rows)
    assert first.error == "no_picture"
    assert "chat template" in (first.detail or "")
    assert second.error is None


def test_prompt_tokens_count_what_is_read_and_no_padding(
    engine_of: Callable[[str], TransformersEngine],
) -> None:
    outcomes = engine_of("llava").caption(request_of(2, GREEDY))
    # 16 patches of 32 px; "user :", the prompt, "assistant :", and the text's start.
    words = [len(prompt.split()) for prompt in PROMPTS]
    tokens = [outcome.prompt_tokens for outcome in outcomes]
    assert tokens[1] - tokens[0] == words[1] - words[0]
    assert tokens[0] == 16 + 2 + words[0] + 2


def test_a_model_without_chat_template_captions_without_being_asked(
    engine_of: Callable[[str], TransformersEngine],
) -> None:
    outcomes = engine_of("blip").caption(request_of(4, SAMPLED, family="blip"))
    assert all("DEC" not in (outcome.text or "") for outcome in outcomes)


def test_memory_that_runs_out_halves_the_batch_and_loses_no_row(llava: Path) -> None:
    engine = TransformersEngine(llava, batch_size=16)
    rows = request_of(8, GREEDY)
    whole = engine.caption(rows)

    def small_memory(model: torch.nn.Module, args: tuple, options: dict) -> None:
        if len(options["input_ids"]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    engine._model.register_forward_pre_hook(small_memory, with_kwargs=True)
    assert engine.caption(rows) == whole


def test_requests_of_two_threads_do_not_disturb_each_other(
    engine_of: Callable[[str], TransformersEngine],
) -> None:
    engine = engine_of("qwen25vl")
    requests = [request_of(6, SAMPLED), replace(request_of(6, GREEDY), prompts=[PROMPTS[0]] * 6)]
    alone = [engine.caption(request) for request in requests]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(engine.caption, requests)) == alone


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
