"""CoCa with a decoder of our own, on a tiny one with random weights."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_captioners import build_coca, picture

from curate.base.errors import ConfigError
from recaption.captioning.settings import RecaptionSettings
from recaption.engines.coca import CocaDecoder, CocaEngine, Vocabulary, write, write_by_beam
from recaption.engines.identity import coca_captioner
from recaption.engines.protocol import CaptionRequest, Sampling
from recaption.engines.registry import chosen_engine, identify, open_engine

GREEDY = Sampling(max_new_tokens=12)
SAMPLED = Sampling(max_new_tokens=12, temperature=1.0, top_p=0.9, top_k=50)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_coca(tmp_path_factory.mktemp("coca"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> CocaEngine:
    return CocaEngine(f"local-dir:{folder}", batch_size=4)


def request_of(rows: int, sampling: Sampling) -> CaptionRequest:
    return CaptionRequest(
        pictures=[picture(row, (40 + 24 * (row % 4), 48)) for row in range(rows)],
        prompts=[""] * rows,
        seeds=list(range(rows)),
        sampling=sampling,
    )


@pytest.mark.parametrize("legacy", [True, False])
def test_cached_steps_give_the_logits_of_the_whole_forward(folder: Path, legacy: bool) -> None:
    model = CocaEngine(f"local-dir:{folder}")._model
    model.text.correct_cls_mask = not legacy
    decoder = CocaDecoder(model)
    pictures = torch.randn(3, 3, 32, 32)
    texts = torch.randint(1, 49000, (3, 10))
    texts[1, 4] = 0  # "!" has the number of the padding, which the text tower hides
    with torch.inference_mode():
        whole = model(pictures, texts, output_labels=False)["logits"]
        state = decoder.start(model._encode_image(pictures)[1])
        steps = [decoder.step(state, texts[:, place]) for place in range(10)]
    assert torch.allclose(torch.stack(steps, dim=1), whole, atol=1e-4)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_batched_captions_of_a_coca_equal_one_by_one_captions(
    engine: CocaEngine, sampling: Sampling
) -> None:
    rows = request_of(7, sampling)
    batched = engine.caption(rows)
    singles = [
        engine.caption(replace(rows, pictures=[image], prompts=[""], seeds=[seed]))[0]
        for image, seed in zip(rows.pictures, rows.seeds, strict=True)
    ]
    assert batched == singles
    assert [outcome.error for outcome in batched] == [None] * 7
    assert len({outcome.text for outcome in batched}) > 4, "the pictures should matter"
    assert all("_of_text" not in (outcome.text or "") for outcome in batched)


def test_a_beam_finds_the_likeliest_text_of_all(engine: CocaEngine) -> None:
    decoder, model = engine._decoder, engine._model
    with torch.inference_mode():
        seen = model._encode_image(torch.randn(2, 3, 32, 32))[1]
        words = Vocabulary(start=49406, end=49407)
        # Two tokens: as wide as the vocabulary, a beam is an exhaustive search.
        found = write_by_beam(decoder, seen, words, most_tokens=2, beams=64)
        greedy = write(decoder, seen, words, Sampling(max_new_tokens=2), [0, 1])
        for row in range(2):
            assert _log_probability(decoder, seen[row : row + 1], found[row]) >= _log_probability(
                decoder, seen[row : row + 1], greedy[row]
            )
        assert write_by_beam(decoder, seen, words, 6, 1) == write(
            decoder, seen, words, Sampling(max_new_tokens=6), [0, 1]
        )


def _log_probability(decoder: CocaDecoder, seen: torch.Tensor, text: list[int]) -> float:
    state, total = decoder.start(seen), 0.0
    for before, token in zip([49406, *text], text, strict=False):
        logs = decoder.step(state, torch.tensor([before])).log_softmax(-1)
        total += float(logs[0, token])
    return total / len(text) + 1e-5


def test_bad_rows_of_a_coca_fail_alone(engine: CocaEngine) -> None:
    rows = request_of(4, GREEDY)
    outcomes = engine.caption(
        replace(rows, pictures=[b"none", None, rows.pictures[2], rows.pictures[3]])
    )
    errors = [outcome.error for outcome in outcomes]
    assert errors == ["broken_picture", "no_picture", None, None]
    assert outcomes[2:] == engine.caption(rows)[2:]


def test_a_text_never_outgrows_the_context(engine: CocaEngine) -> None:
    outcomes = engine.caption(request_of(2, Sampling(max_new_tokens=500, temperature=3.0)))
    assert max(outcome.output_tokens for outcome in outcomes) <= 15


def test_settings_lead_to_a_coca_and_hash_its_weights(folder: Path) -> None:
    settings = RecaptionSettings(captioner=str(folder), kinds=("short",), batch_size=2, beams=2)
    assert chosen_engine(settings) == "coca"
    captioner = identify(settings)
    assert captioner.revision == coca_captioner(f"local-dir:{folder}").revision
    opened = open_engine(settings, captioner, GREEDY, settings)
    assert opened.name == "coca"
    assert opened.caption(request_of(3, GREEDY))[0].error is None


def test_settings_that_only_a_coca_has_are_refused_elsewhere(llava: Path, folder: Path) -> None:
    for wrong in (
        {"captioner": str(llava), "beams": 2},
        {"captioner": str(llava), "pretrained": "laion2b"},
        {"captioner": str(folder), "engine": "transformers"},
        {"captioner": "http://localhost:1/v1", "engine": "coca"},
    ):
        with pytest.raises(ConfigError):
            chosen_engine(RecaptionSettings(**wrong))


def test_a_coca_in_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text("{}")
    torch.save({}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(ConfigError, match="safetensors"):
        coca_captioner(str(tmp_path))
