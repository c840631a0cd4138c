"""From settings to scorers: which ones a run asks for, with their weights found and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curate.base.registry import load
from curate.scoring.scorers.own import GuardedScorer, checked
from curate.scoring.scorers.scorer import Scorer
from curate.scoring.settings import ScoreSettings

GROUP = "scorers"
BUILTIN: Mapping[str, str] = {
    name: f"curate.scoring.scorers.{place}"
    for name, place in {
        "clip": "clip:Clip",
        "fingerprint": "image_basics:Fingerprint",
        "image_basics": "image_basics:ImageBasics",
        "text_basics": "text_basics:TextBasics",
        "text_normalised": "text_basics:TextNormalised",
        "text_language": "text_language:TextLanguage",
        "text_words": "text_words:TextWords",
        "head": "head_source:HeadScorer",
        "image_classifier": "classifier:ImageClassifier",
        "laion_watermark": "classifier:LaionWatermark",
    }.items()
} | {
    "ask": "curate.scoring.models.ask:Ask",
    "area": "curate.scoring.models.areas:Area",
}
"""Part of every run, as far as the settings ask for what they need; in the order of columns."""


def make_scorers(settings: ScoreSettings) -> list[Scorer]:
    """The scorers that the settings ask for.

    Raises:
        ConfigError: a model, tag or file that does not exist; before anything is read.
    """
    return [scorer for name in (*BUILTIN, *settings.scorers) for scorer in _named(name, settings)]


def load_own(name: str) -> GuardedScorer:
    """The scorer of an entry point's name or `module:Class`; ConfigError as for `checked`."""
    return checked(load(GROUP, name, BUILTIN), name)


def _named(name: str, settings: ScoreSettings) -> Sequence[Scorer]:
    if name not in BUILTIN:
        return [load_own(name)]
    kind: Any = load(GROUP, name, BUILTIN)
    ours: Sequence[Scorer] = kind.of(settings)
    return ours
