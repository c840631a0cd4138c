"""From pictures' values to tables and words."""

import numpy as np

from pipelines.ablation.tables import (
    Values,
    arms_table,
    contrasts_table,
    left_out,
    text_table,
    unanswered,
)

RNG = np.random.default_rng(0)


def values(arm: str, metric: str, mean: float, form: str = "short") -> Values:
    """Two seeds of twenty prompts, whose seeds differ a lot."""
    matrix = (RNG.random((2, 20)) < np.array([[mean], [min(1.0, mean + 0.2)]])).astype(float)
    return Values(arm, form, metric, matrix)


def test_intervals_of_shares_and_of_their_differences_end_where_shares_do() -> None:
    made = [values("a", "colour", 0.8), values("b", "colour", 0.1)]
    for row in arms_table(made).to_pylist():
        assert 0 <= row["t_low"] <= row["low"] <= row["high"] <= row["t_high"] <= 1
        assert row["t_low"] == 0 or row["t_high"] == 1
    (row,) = contrasts_table(made, [("a", "b")], "colour", "short").to_pylist()
    assert -1 <= row["low"] <= row["difference"] <= row["high"] == 1
    assert row["verdict"].endswith("100.0].")


def test_a_metric_that_is_undefined_is_left_out_with_a_word() -> None:
    hole = values("b", "shape", 0.5)
    hole.matrix[1] = np.nan  # a whole seed
    nowhere = [Values(arm, "short", "position", np.full((2, 20), np.nan)) for arm in "ab"]
    made = [values("a", "colour", 0.8), values("b", "colour", 0.1)]
    made += [values("a", "shape", 0.5), hole, *nowhere]
    arms = arms_table(made)
    assert {(r["arm"], r["metric"]) for r in arms.to_pylist()} == {
        ("a", "colour"),
        ("b", "colour"),
        ("a", "shape"),
    }
    assert left_out(made) == ["shape of b on short prompts", "position on short prompts"]
    text = text_table(arms, 2, left_out(made))
    assert "nan" not in text
    assert text.endswith("left out: shape of b on short prompts; position on short prompts")
    contrasts = contrasts_table(made, [("a", "b")], "shape", "short")
    assert [row["metric"] for row in contrasts.to_pylist()] == ["colour"]
    assert unanswered(contrasts, [("a", "b")], "shape", "short") == [
        "a and b on short prompts cannot be compared: shape is undefined for a seed."
    ]


def test_each_row_of_the_terminal_s_table_has_its_own_unit() -> None:
    cosine = Values("a", "short", "clip_similarity", np.full((2, 20), 0.2834))
    text = text_table(arms_table([values("a", "colour", 1.0), cosine]), 2)
    assert "colour, %            100.0 [100.0, 100.0]" in text
    assert "CLIP similarity   0.2834 [0.2834, 0.2834]" in text


def test_exploratory_contrasts_are_adjusted_among_themselves_and_not_with_the_declared() -> None:
    made = [values(arm, name, 0.5) for arm in "ab" for name in ("colour", "shape", "binding")]
    rows = contrasts_table(made, [("a", "b")], "colour", "short").to_pylist()
    (declared,) = [row for row in rows if row["declared"]]
    assert declared["p_holm"] == declared["p_value"]
    others = [row for row in rows if not row["declared"]]
    assert min(row["p_holm"] for row in others) == min(
        1.0, 2 * min(row["p_value"] for row in others)
    )
