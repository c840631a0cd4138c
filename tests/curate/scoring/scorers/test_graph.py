from collections.abc import Mapping
from typing import Any

import pytest

from curate.base.errors import ConfigError
from curate.scoring.scorers.scorer import Column, Columns, Scorer, ScorerGraph


class Named(Scorer):
    """A scorer with any name, needs and adds."""

    def __init__(self, name: str, needs: str, adds: str, version: int = 1) -> None:
        self.name, self.needs, self.adds = name, tuple(needs.split()), tuple(adds.split())  # type: ignore[misc]
        self.version = version

    def signature(self) -> dict[str, Any]:
        return {"version": self.version}

    def score(self, columns: Mapping[str, Column]) -> Columns:
        return {}


def chain(version: int = 1) -> ScorerGraph:
    head = Named("head", "embedding", "aesthetic")
    clip = Named("clip", "picture alt_text", "embedding similarity", version)
    return ScorerGraph([head, clip, Named("text", "alt_text", "text_chars")])


def names(scorers: tuple[Scorer, ...]) -> list[str]:
    return [scorer.name for scorer in scorers]


def test_scorers_run_after_those_that_they_need() -> None:
    order = names(chain().plan({}).run)
    assert order.index("clip") < order.index("head")


def test_a_column_that_nobody_adds_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"'embeding'.*did you mean 'embedding'"):
        ScorerGraph([Named("clip", "picture", "embedding"), Named("head", "embeding", "score")])


def test_a_circle_is_refused() -> None:
    with pytest.raises(ConfigError, match="circle"):
        ScorerGraph([Named("a", "y", "x"), Named("b", "x", "y")])


def test_two_scorers_cannot_add_one_column() -> None:
    with pytest.raises(ConfigError, match=r"'score'.*'a'"):
        ScorerGraph([Named("a", "picture", "score"), Named("b", "picture", "score")])


def test_nothing_runs_where_everything_is_stored() -> None:
    graph = chain()
    plan = graph.plan(graph.signatures)
    assert plan.run == ()
    assert not plan.decodes


def test_a_missing_head_reads_the_stored_embedding_and_no_picture() -> None:
    graph = chain()
    stored = {name: mark for name, mark in graph.signatures.items() if name != "aesthetic"}
    plan = graph.plan(stored)
    assert names(plan.run) == ["head"]
    assert plan.load == {"embedding"}
    assert not plan.decodes


def test_other_weights_below_recompute_everything_that_rests_on_them() -> None:
    plan = chain(version=2).plan(chain(version=1).signatures)
    assert names(plan.run) == ["clip", "head"]
    assert plan.inputs == {"picture", "alt_text"}


def test_the_graph_knows_what_rests_on_the_picture() -> None:
    graph = chain()
    assert graph.rests_on_picture("aesthetic")
    assert not graph.rests_on_picture("text_chars")
