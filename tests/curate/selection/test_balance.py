"""`--balance` and `--cap`: groups of equal weight, and what becomes of the weights."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from curate.base.errors import ConfigError
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.check import check
from curate.store.dataset import Dataset
from curate.store.holes import SELECTIONS
from tests.curate.scored import make_scored

LANGUAGES = ["en"] * 60 + ["de"] * 30 + ["fr"] * 6 + [None] * 4
OF = {f"{n:032x}": language for n, language in enumerate(LANGUAGES)}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """100 samples of three languages and of none; the first three are copies of each other."""
    rows = [
        {"key": key, "language": language, "quality": float(n), "width": 64, "height": 64}
        for n, (key, language) in enumerate(OF.items())
    ]
    keys = list(OF)
    return make_scored(
        tmp_path / "d", rows, [("exact", keys[0], keys[1]), ("exact", keys[1], keys[2])]
    )


def weights_of(dataset: Dataset, name: str) -> dict[str, float]:
    rows = pq.read_table(dataset.selection_path(name))
    keys = rows.column("key").to_pylist()
    assert keys == sorted(keys)
    return dict(zip(keys, rows.column("weight").to_pylist(), strict=True))


def problems(dataset: Dataset) -> list[str]:
    return [hole.problem for hole in check(dataset).holes if hole.table == SELECTIONS]


def test_groups_get_equal_total_weight_and_the_mean_is_one(dataset: Dataset) -> None:
    summary = select(dataset, SelectSettings(name="even", balance="language"))
    weights = weights_of(dataset, "even")
    assert summary.selected == len(weights) == 98
    total = Counter()
    for key, weight in weights.items():
        total[OF[key]] += weight
    assert set(total) == {"en", "de", "fr", None}
    assert all(value == pytest.approx(98 / 4) for value in total.values())
    assert sum(weights.values()) == pytest.approx(98)
    assert "4 groups" in summary.text()
    assert "null" in summary.text()


def test_a_cap_bounds_every_group_and_a_higher_one_keeps_what_a_lower_one_kept(
    dataset: Dataset,
) -> None:
    summary = select(dataset, SelectSettings(name="ten", balance="language", cap=10))
    ten = weights_of(dataset, "ten")
    assert Counter(OF[key] for key in ten) == {"en": 10, "de": 10, "fr": 6, None: 4}
    last = summary.funnel[-1]
    assert last.rule == "at most 10 a group of language"
    assert (last.removed_alone, last.removed_in_order, last.left) == (70, 68, 30)
    select(dataset, SelectSettings(name="twenty", balance="language", cap=20))
    assert set(ten) < set(weights_of(dataset, "twenty"))
    kept = [n for n, (key, language) in enumerate(OF.items()) if language == "de" and key in ten]
    assert kept[-1] - 60 >= 20  # by hash, not the first of them


def test_a_cap_at_the_smallest_group_makes_every_weight_one(dataset: Dataset) -> None:
    select(dataset, SelectSettings(name="flat", balance="language", cap=4))
    assert set(weights_of(dataset, "flat").values()) == {1.0}


def test_only_what_passes_the_rules_takes_part(dataset: Dataset) -> None:
    where = SelectSettings(name="late", where="quality >= 80", balance="language")
    select(dataset, where)
    counted = Counter(OF[key] for key in weights_of(dataset, "late"))
    assert counted == {"de": 10, "fr": 6, None: 4}


def test_any_expression_over_the_columns_groups(dataset: Dataset) -> None:
    select(dataset, SelectSettings(name="half", where="quality < 60"))
    text = "CASE WHEN in_selection('half') THEN 'early' ELSE language END"
    select(dataset, SelectSettings(name="mixed", balance=text))
    record = dataset.selection_record("mixed")
    assert {group["group"] for group in record["balance"]["largest"]} == {"early", "de", "fr", None}
    assert "half" in record["rests_on"]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("langauge", "did you mean 'language'"),
        ("random()", "another answer"),
        ("count(language)", "does not work"),
        ("language + 1", "does not work"),
        ("CAST(language AS INTEGER)", "does not work"),
        ("3", "reads no column"),
        ("(SELECT 1)", "subquery"),
    ],
)
def test_a_wrong_expression_is_one_sentence_and_writes_nothing(
    dataset: Dataset, expression: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        select(dataset, SelectSettings(name="even", balance=expression))
    assert "\n" not in str(caught.value)
    assert dataset.selections() == []


def test_a_cap_needs_groups() -> None:
    with pytest.raises(ValidationError, match="give balance as well"):
        SelectSettings(cap=3)


def test_without_balance_there_is_no_weight(dataset: Dataset) -> None:
    select(dataset, SelectSettings(name="plain"))
    assert pq.read_schema(dataset.selection_path("plain")).names == ["key"]
    assert not dataset.is_weighted("plain")


def test_the_same_balance_is_a_no_op_and_another_is_refused(dataset: Dataset) -> None:
    settings = SelectSettings(name="even", balance="language", cap=10)
    first = select(dataset, settings)
    content = dataset.selection_path("even").read_bytes()
    again = select(dataset, settings)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.text().replace(", as stored before", "") == first.text()
    assert dataset.selection_path("even").read_bytes() == content
    with pytest.raises(ConfigError, match="cap = 10, not 20"):
        select(dataset, settings.model_copy(update={"cap": 20}))
    with pytest.raises(ConfigError, match="balance"):
        select(dataset, SelectSettings(name="even"))


def test_lost_weights_are_found_and_the_record_makes_them_again(dataset: Dataset) -> None:
    select(dataset, SelectSettings(name="even", balance="language", cap=10))
    path = dataset.selection_path("even")
    content = path.read_bytes()
    assert not problems(dataset)
    pq.write_table(pq.read_table(path).select(["key"]), path)
    assert problems(dataset) == ["has no weights, and its record says that it is balanced"]
    path.unlink()  # as `caplab check --repair` does
    select(dataset, SelectSettings(**dataset.selection_record("even")["settings"]))
    assert path.read_bytes() == content
    rows = pq.read_table(path)
    weights = rows.column("weight").to_pylist()
    pq.write_table(rows.set_column(1, "weight", [[0.0, *weights[1:]]]), path)
    assert problems(dataset) == ["holds a weight that is not above 0"]
