"""Which ground truth belongs to which score, where the synthetic world tells it."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.report.data import Inputs

# Score -> truth column, whether the column tells the good ones, names of good and bad.
_OF_SCORE = {
    "clip_similarity": ("text_matches", True, "text fits", "text does not fit"),
    "aesthetic": ("good_looking", True, "good looking", "spoiled"),
    "nsfw": ("unsafe", False, "safe", "marked unsafe"),
}


@dataclass(frozen=True)
class Split:
    """How to tell good samples from bad ones in SQL over `scores c`.

    `sql` gives one of `names`, good first; `join` brings in what it needs.
    """

    sql: str
    join: str
    names: tuple[str, str]


def split(inputs: Inputs, score: str) -> Split | None:
    """The split of `score` by ground truth; None where no truth is known for it."""
    if inputs.truth_path is None or score not in _OF_SCORE:
        return None
    column, tells_good, good, bad = _OF_SCORE[score]
    if column not in inputs.columns("truth"):
        return None
    if not tells_good:
        condition = f"CASE WHEN t.{column} THEN '{bad}' ELSE '{good}' END"
    else:
        condition = f"CASE WHEN t.{column} THEN '{good}' ELSE '{bad}' END"
    # The truth knows a URL by its path: hosts and ports differ from run to run.
    join = (
        " JOIN samples s ON s.key = c.key JOIN truth t "
        "ON t.path = regexp_extract(s.url, '^[a-z]+://[^/]+/(.*)$', 1)"
    )
    return Split(condition, join, (good, bad))
