"""The demo's answer in one plain sentence, and between what bounds its scores lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.ablation.metrics import metric

_BOUNDED = ("object_hit", "object_forced")
_BOUNDS = ("ceiling", "soft", "unrelated", "hedging")
# By the sign of a claimed difference; 0 where none is claimed.
_THAN_ALT = {
    1: "follow descriptive prompts better than",
    0: "are not shown to follow descriptive prompts better than",
    -1: "follow descriptive prompts worse than",
}
_THAN_SHUFFLED = {
    1: "it is what the captions say and not their style alone, for the same captions on other "
    "pictures do worse",
    0: "that it is what the captions say, and not their style, is not shown",
    -1: "it is not what the captions say, for the same captions on other pictures do better",
}


def answer_of(study: Path) -> str:
    """`plain_answer` of a finished study's tables."""
    contrasts, equivalence = (
        pq.read_table(study / "results" / f"{name}.parquet").to_pylist()
        for name in ("contrasts", "equivalence")
    )
    return plain_answer(contrasts, equivalence)


def plain_answer(
    contrasts: Sequence[Mapping[str, Any]], equivalence: Sequence[Mapping[str, Any]]
) -> str:
    """What the study shows and what not, in one sentence that says no more than its tests do.

    Args:
        contrasts: rows of contrasts.parquet; the declared ones of descriptive against alt and
            against shuffled count.
        equivalence: rows of equivalence.parquet: descriptive no worse than alt on short prompts.
    """
    signs = {
        row["arm_b"]: (row["difference"] > 0) - (row["difference"] < 0) if row["claimed"] else 0
        for row in contrasts
        if row["declared"] and row["arm_a"] == "descriptive"
    }
    parts = [
        "models trained on captions of what a picture shows "
        f"{_THAN_ALT[signs.get('alt', 0)]} models trained on alt texts",
        _THAN_SHUFFLED[signs.get("shuffled", 0)],
    ]
    for row in equivalence:
        known = metric(row["metric"])
        margin = f"{known.factor * row['margin']:g}{known.suffix}"
        lost = f"on {row['form']} prompts they lose less than {margin}, if any"
        parts.append(lost if row["claimed"] else f"that {lost}, is not shown")
    return (
        f"In one sentence: {'; '.join(parts)}; all in a small drawn world with one small model and "
        f"one captioner, which says nothing of photographs, larger models or longer training."
    )


def bounds_text(study: Path) -> str:
    """A plain-text table of the bounds that the judge told for a study's prompts, in percent."""
    rows = pq.read_table(study / "results" / "bounds.parquet").to_pylist()
    lines = [
        "bounds of the judge".ljust(50) + "".join(f"{name:>11}" for name in _BOUNDS),
        *(
            f"  {row['form']} prompts: {metric(row['metric']).column}".ljust(50)
            + "".join(f"{metric(row['metric']).shown(row[name]):>11}" for name in _BOUNDS)
            for row in rows
            if row["metric"] in _BOUNDED
        ),
    ]
    return "\n".join(lines)
