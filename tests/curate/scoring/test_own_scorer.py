"""A scorer of somebody's own: found by name, checked before any work, its bad rows told apart."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import ConfigError
from curate.scoring.scorers.make import load_own
from curate.scoring.scorers.own import OwnScorer
from curate.scoring.scorers.scorer import ScorerGraph
from curate.scoring.settings import ScoreSettings
from curate.scoring.stage import ScoreStage
from curate.store.dataset import Dataset
from tests.curate.tiny import encoded, make_dataset, tiny_clip

EXAMPLES = Path(__file__).parents[3] / "examples"


class Shouting(OwnScorer):
    name, version = "shouting", 1
    needs = ("alt_text",)
    types: ClassVar = {"shouts": pa.bool_(), "capitals": pa.int32()}

    def score(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        capitals = [sum(c.isupper() for c in text) for text in columns["alt_text"]]
        return {"shouts": np.array(capitals) > 3, "capitals": capitals}


class Short(Shouting):
    def score(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        return {"shouts": [True] * 7, "capitals": [1] * 7}


class Unfinished(OwnScorer):
    name, version, needs = "unfinished", 1, ("alt_text",)
    types: ClassVar = {"x": pa.int32()}


class Untyped(Shouting):
    types: ClassVar = {"x": "int32"}  # type: ignore[dict-item]


class OfThePicture(Shouting):
    types: ClassVar = {"width": pa.int32()}


class NeedsArguments(Shouting):
    def __init__(self, weights: str) -> None:
        self.weights = weights


class Lost(Shouting):
    needs = ("alt_txt",)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    warm, cold = np.zeros((2, 40, 40, 3), np.uint8)
    warm[..., 0], cold[..., 2] = 255, 255
    samples = [(encoded(warm), "A CAT"), (encoded(cold), None), (b"broken", "a dog")]
    return make_dataset(tmp_path / "dataset", [samples])


@pytest.fixture
def run(dataset: Dataset, tmp_path: Path) -> Any:
    config, weights = tiny_clip(tmp_path / "clip")
    clip = {"clip_model": str(config), "clip_pretrained": str(weights)}

    def run(*names: str) -> tuple[dict[str, int], list[dict[str, Any]], ScoreStage]:
        stage = ScoreStage(ScoreSettings(**clip, scorers=names))
        stage.open()
        counts = stage.run(dataset, "00000")
        return counts, dataset.read_table("scores", "00000").to_pylist(), stage

    return run


def test_the_example_adds_its_columns(
    run: Any, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    counts, rows, stage = run("scorer_of_your_own:WarmthAndReading")
    assert [row["warmth"] for row in rows] == [1, -1, None]
    assert [row["reading_seconds"] for row in rows] == [pytest.approx(1 / 3), None, None]
    assert counts == {"scored": 3, "undecodable": 1, "empty_text": 1}
    assert stage.is_done(dataset, "00000")
    assert len((EXAMPLES / "scorer_of_your_own.py").read_text().splitlines()) < 40


def test_a_row_at_which_it_fails_is_stored_with_the_reason(run: Any) -> None:
    counts, rows, _ = run(f"{__name__}:Shouting")
    assert [(row["shouts"], row["capitals"]) for row in rows] == [
        (True, 4),
        (None, None),
        (False, 0),
    ]
    assert [row["shouting_error"] for row in rows] == [
        None,
        "TypeError: 'NoneType' object is not iterable",
        None,
    ]
    assert counts["shouting_error"] == 1


def test_columns_of_another_length_are_failures_and_no_shift_of_rows(run: Any) -> None:
    counts, rows, _ = run(f"{__name__}:Short")
    assert [row["capitals"] for row in rows] == [None] * 3
    assert "other lengths than 1" in rows[0]["shouting_error"]
    assert counts["shouting_error"] == 3


def test_a_new_version_is_a_new_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ScorerGraph([load_own(f"{__name__}:Shouting")]).signatures
    monkeypatch.setattr(Shouting, "version", 2)
    assert ScorerGraph([load_own(f"{__name__}:Shouting")]).signatures != first


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_such_module:X", "No module named 'no_such_module'"),
        ("shouter", "no scorers named 'shouter'"),
        (f"{__name__}:EXAMPLES", "no class that derives from"),
        (f"{__name__}:Unfinished", "has no method score"),
        (f"{__name__}:Untyped", "gives x the type 'int32'; use a type of pyarrow"),
        (f"{__name__}:OfThePicture", "adds 'width', which is the name of a column"),
        (f"{__name__}:NeedsArguments", "cannot be made .*missing 1 required .*'weights'"),
    ],
)
def test_what_cannot_run_is_said_in_a_sentence_before_any_work(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_own(name)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["Lost"], "needs the column 'alt_txt', which nobody adds; did you mean 'alt_text'"),
        (["Shouting", "Short"], "Two scorers are called 'shouting'"),
    ],
)
def test_the_graph_is_checked_with_it(names: list[str], sentence: str) -> None:
    assert __name__ in sys.modules
    with pytest.raises(ConfigError, match=sentence):
        ScorerGraph([load_own(f"{__name__}:{name}") for name in names])
