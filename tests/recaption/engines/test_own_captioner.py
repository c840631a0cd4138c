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
