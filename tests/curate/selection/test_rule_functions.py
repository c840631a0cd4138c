"""Fractions and selections inside a rule."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import ConfigError
from curate.selection import rule_functions
from curate.selection.rule_functions import nth_largest
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from tests.curate.scored import make_scored


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Ten samples: score 0.0 to 0.8, and one without."""
    rows = [
        {
            "key": f"k{number}",
            "score": None if number == 9 else number / 10,
            "even": number % 2 == 0,
        }
        for number in range(10)
    ]
    return make_scored(tmp_path / "d", rows)


def chosen(dataset: Dataset, where: str, name: str = "s") -> list[str]:
    select(dataset, SelectSettings(name=name, where=where, keep_duplicates=True, overwrite=True))
    return dataset.selection_keys(name)


def test_a_fraction_counts_all_stored_samples(dataset: Dataset) -> None:
    assert chosen(dataset, "top_fraction(score, 0.3)") == ["k6", "k7", "k8"]
    assert chosen(dataset, "top_fraction(-score, 0.1)") == ["k0"]
    assert chosen(dataset, "top_fraction(score, 1)") == [f"k{i}" for i in range(9)]


def test_datacomps_own_fraction_keeps_one_more_as_its_code_does(dataset: Dataset) -> None:
    scores = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, -np.inf])
    threshold = -np.sort(-scores)[int(len(scores) * 0.3)]
    expected = [f"k{i}" for i, score in enumerate(scores) if score >= threshold]
    assert chosen(dataset, "datacomp_top_fraction(score, 0.3)") == expected == [
        "k5", "k6", "k7", "k8",
    ]  # fmt: skip


def test_a_fraction_stays_a_fraction_of_all_beside_other_rules(dataset: Dataset) -> None:
    assert chosen(dataset, "even and top_fraction(score, 0.3)") == ["k6", "k8"]
    assert chosen(dataset, "not even or top_fraction(score, 0.1)") == [
        "k1", "k3", "k5", "k7", "k8", "k9",
    ]  # fmt: skip


def test_the_threshold_that_a_fraction_amounts_to_is_on_record(dataset: Dataset) -> None:
    chosen(dataset, "top_fraction(score, 0.3)")
    record = dataset.selection_record("s")
    assert record["fractions"] == [{"expression": "score", "fraction": 0.3, "threshold": 0.6}]
    assert record["rules"] == ["top_fraction(score, 0.3)"]
    assert "0.6" in record["sql"][0]


def test_ties_at_the_edge_pass_together(tmp_path: Path) -> None:
    rows = [{"key": f"k{i}", "score": float(i >= 2)} for i in range(6)]
    dataset = make_scored(tmp_path / "d", rows)
    assert chosen(dataset, "top_fraction(score, 0.2)") == ["k2", "k3", "k4", "k5"]


@pytest.mark.parametrize(
    "where",
    ["top_fraction(score, 0)", "top_fraction(score, 1.5)", "top_fraction(score)",
     "top_fraction(score, even)"],
)  # fmt: skip
def test_a_fraction_needs_a_column_and_a_share(dataset: Dataset, where: str) -> None:
    with pytest.raises(ConfigError, match="a number above 0 and at most 1"):
        chosen(dataset, where)


def test_selections_combine_as_sets(dataset: Dataset) -> None:
    chosen(dataset, "even", "even")
    chosen(dataset, "score > 0.35", "high")
    both = chosen(dataset, "in_selection('even') and in_selection('high')")
    assert both == ["k4", "k6", "k8"]
    assert chosen(dataset, "in_selection('high') and not in_selection('even')") == ["k5", "k7"]
    either = chosen(dataset, "in_selection('high') or in_selection('even')")
    assert either == ["k0", "k2", "k4", "k5", "k6", "k7", "k8"]
    with pytest.raises(ConfigError, match=r"no selection 'odd' \(selections: even, high, s\)"):
        chosen(dataset, "in_selection('odd')")
    with pytest.raises(ConfigError, match="a name in quotes"):
        chosen(dataset, "in_selection(even)")


def test_a_selection_grows_stale_with_one_that_it_rests_on(dataset: Dataset) -> None:
    chosen(dataset, "even", "even")
    settings = SelectSettings(name="s", where="in_selection('even')", keep_duplicates=True)
    assert select(dataset, settings).selected == 5
    assert not select(dataset, settings).fresh
    chosen(dataset, "even and score > 0.35", "even")
    with pytest.raises(ConfigError, match="earlier state"):
        select(dataset, settings)


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "INTEGER"])
@pytest.mark.parametrize("few", [4, 100])
def test_the_nth_largest_is_that_of_a_sort(
    monkeypatch: pytest.MonkeyPatch, kind: str, few: int
) -> None:
    monkeypatch.setattr(rule_functions, "_FEW", few)
    monkeypatch.setattr(rule_functions, "_BINS", 8)
    random = np.random.default_rng(0)
    values = random.normal(0, 50, 500)
    values[:200] = np.round(values[:200], -1)  # many ties
    connection = duckdb.connect()
    connection.from_arrow(pa.table({"v": values})).create("raw")
    connection.execute(f"CREATE TABLE t AS SELECT v::{kind} AS v FROM raw")
    connection.execute("INSERT INTO t VALUES (NULL)")
    stored = connection.execute("SELECT v FROM t WHERE v IS NOT NULL").fetchall()
    ordered = sorted((row[0] for row in stored), reverse=True)
    for place in (1, 2, 7, 250, 499, 500, 900):
        expected = ordered[min(place, 500) - 1]
        assert nth_largest(connection, "v", "SELECT * FROM t", place) == (expected, kind)
