"""A captioner that is a class of the user's."""

from __future__ import annotations

import pytest

from curate.base.errors import ConfigError
from recaption.captioning.settings import RecaptionSettings
from recaption.engines.protocol import CaptionOutcome, CaptionRequest, Sampling
from recaption.engines.registry import identify, open_engine


class Parrot:
    """Says what it is asked."""

    name, revision = "parrot", "1"

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        return [CaptionOutcome(text=prompt) for prompt in request.prompts]


def test_a_class_captions_under_its_name_and_revision() -> None:
    settings = RecaptionSettings(captioner=f"{__name__}:Parrot")
    captioner = identify(settings)
    assert (captioner.model, captioner.revision, captioner.engine) == ("parrot", "1", "own")
    engine = open_engine(settings, captioner, Sampling(2), settings)
    assert engine.caption(CaptionRequest([None], ["hello"], [0], Sampling(2)))[0].text == "hello"


@pytest.mark.parametrize(
    ("captioner", "sentence"),
    [
        ("math:pi", "is no CaptionEngine: it has no 'name'"),
        ("no_such_package:Captioner", "cannot be imported"),
    ],
)
def test_what_is_no_captioner_is_said_before_any_work(captioner: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        identify(RecaptionSettings(captioner=captioner))


class Choosy(Parrot):
    """Raises for a batch with a bad prompt in it."""

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        if "bad" in request.prompts:
            raise ValueError("cannot say bad")
        return super().caption(request)


class Hasty(Parrot):
    """Gives texts, and one too few."""

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        return list(request.prompts[1:])  # type: ignore[arg-type]


class Needy(Parrot):
    """Takes an argument that nobody gives."""

    def __init__(self, model: str) -> None:
        self.model = model


def opened(name: str):
    settings = RecaptionSettings(captioner=f"{__name__}:{name}")
    return open_engine(settings, identify(settings), Sampling(2), settings)


def test_a_row_that_it_cannot_caption_costs_no_other_its_caption() -> None:
    asked = CaptionRequest([None] * 3, ["a", "bad", "c"], [0, 1, 2], Sampling(2))
    outcomes = opened("Choosy").caption(asked)
    assert [outcome.text for outcome in outcomes] == ["a", None, "c"]
    assert (outcomes[1].error, outcomes[1].detail) == ("engine_error", "ValueError: cannot say bad")


def test_what_are_no_outcomes_ends_the_run_with_the_captioner_s_name() -> None:
    with pytest.raises(ConfigError, match=r"Hasty must give a list of 2 CaptionOutcome"):
        opened("Hasty").caption(CaptionRequest([None] * 2, ["a", "b"], [0, 1], Sampling(2)))
    with pytest.raises(ConfigError, match=r"Needy cannot be made \(TypeError"):
        opened("Needy")
