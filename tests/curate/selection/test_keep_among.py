"""Copies are dropped among the samples that the other rules let through."""

from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import ConfigError
from curate.selection.keep_among import Copies
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from tests.curate.scored import make_scored


def made(directory: Path, pairs: list[tuple[str, str, str]], nsfw: dict[str, float]) -> Dataset:
    """Samples a (the largest) to e (the smallest) with these pairs and NSFW scores."""
    rows = [
        {"key": key, "width": 500 - 100 * number, "height": 100, "nsfw": nsfw.get(key, 0.0)}
        for number, key in enumerate("abcde")
    ]
    return make_scored(directory, rows, pairs)


def chosen(dataset: Dataset, where: str = "nsfw < 0.5", **settings: object) -> str:
    select(dataset, SelectSettings(name="s", where=where, overwrite=True, **settings))  # type: ignore[arg-type]
    return "".join(dataset.selection_keys("s"))


def test_a_group_whose_best_copy_fails_a_rule_keeps_its_next(tmp_path: Path) -> None:
    pairs = [("near", "a", "b"), ("near", "a", "c"), ("near", "b", "c")]
    dataset = made(tmp_path / "d", pairs, {"a": 0.9})
    assert chosen(dataset) == "bde"
    assert chosen(dataset, "true") == "ade"


def test_a_sample_near_a_dropped_one_alone_stays(tmp_path: Path) -> None:
    dataset = made(tmp_path / "d", [("near", "a", "b"), ("near", "b", "c")], {})
    assert chosen(dataset) == "acde"


def test_equal_copies_share_the_pairs_of_the_one_that_was_looked_at(tmp_path: Path) -> None:
    # Search compares one of the equals a and b (here a) with c; b inherits the pair.
    dataset = made(tmp_path / "d", [("exact", "a", "b"), ("near", "a", "c")], {"a": 0.9})
    assert chosen(dataset) == "bde"


def test_equals_stay_equal_when_the_one_that_joins_them_fails(tmp_path: Path) -> None:
    dataset = made(tmp_path / "d", [("exact", "a", "b"), ("exact", "a", "c")], {"a": 0.9})
    assert chosen(dataset) == "bde"


def test_a_narrower_level_drops_fewer(tmp_path: Path) -> None:
    pairs = [("exact", "a", "b"), ("near", "c", "d"), ("embedding", "d", "e")]
    dataset = made(tmp_path / "d", pairs, {})
    assert chosen(dataset, duplicate_level="exact") == "acde"
    assert chosen(dataset, duplicate_level="near") == "ace"
    assert chosen(dataset, duplicate_level="embedding") == "ace"
    assert chosen(dataset, keep_duplicates=True) == "abcde"
    with pytest.raises(ConfigError, match="levels are exact, near, embedding"):
        chosen(dataset, duplicate_level="nearly")


def test_the_best_copy_is_the_best_by_the_quality_asked_for(tmp_path: Path) -> None:
    dataset = made(tmp_path / "d", [("near", "a", "b")], {"a": 0.2, "b": 0.1})
    assert chosen(dataset) == "acde"
    assert chosen(dataset, quality=["-nsfw"]) == "bcde"
    with pytest.raises(ConfigError, match="no column 'prettiness'"):
        chosen(dataset, quality=["prettiness"])


def test_the_funnel_shows_the_step_alone_and_in_order(tmp_path: Path) -> None:
    pairs = [("near", "a", "b"), ("near", "a", "c"), ("near", "b", "c")]
    dataset = made(tmp_path / "d", pairs, {"a": 0.9})
    summary = select(dataset, SelectSettings(where="nsfw < 0.5"))
    step = summary.funnel[-1]
    assert step.rule == "best of its copies (near)"
    assert (step.removed_alone, step.removed_in_order, step.left) == (2, 1, 3)
    assert dataset.selection_record("default")["duplicates"]["methods"] == ["near"]


def test_it_does_what_going_through_the_samples_one_by_one_does() -> None:
    random = np.random.default_rng(3)
    for _ in range(30):
        total = 40
        pairs = random.integers(0, total, (60, 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        exact = random.random(len(pairs)) < 0.2
        among = random.random(total) < 0.6
        dropped = Copies(total, pairs, exact).dropped(among)
        assert dropped.tolist() == _one_by_one(pairs, exact, among)


def _one_by_one(pairs: np.ndarray, exact: np.ndarray, among: np.ndarray) -> list[bool]:
    group = list(range(len(among)))
    for a, b in pairs[exact].tolist():
        old, new = group[a], group[b]
        group = [new if one == old else one for one in group]
    near = {frozenset((group[a], group[b])) for a, b in pairs.tolist()}
    kept: list[int] = []
    for row in np.flatnonzero(among).tolist():
        same = any(group[row] == group[one] for one in kept)
        if not same and not any(frozenset((group[row], group[one])) in near for one in kept):
            kept.append(row)
    return [bool(is_in and row not in kept) for row, is_in in enumerate(among)]


def test_groups_of_equals_are_found_along_paths_of_pairs() -> None:
    random = np.random.default_rng(0)
    order = random.permutation(2000)
    path = np.stack([order[:-1], order[1:]], axis=1)
    cut = path[np.arange(1999) != 700]
    dropped = Copies(2000, cut, np.ones(len(cut), bool)).dropped(np.ones(2000, bool))
    assert np.flatnonzero(~dropped).tolist() == sorted([order[:701].min(), order[701:].min()])
