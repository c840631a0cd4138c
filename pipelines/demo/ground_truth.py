"""How well curation and recaptioning did on the synthetic web, where the truth is known.

Every check is a precision (of what it flagged, how much was right to flag) and a recall (of what
it should have flagged, how much it did), counted over rows. Rows stand in the truth in the order
of the URL list, so `samples.row` joins the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan

# Which reasons answer for which planted defect of the download.
DOWNLOAD_DEFECTS = {
    "too_small": "defect = 'too_small'",
    "broken": "defect = 'broken'",
    "dead_link": "defect = 'dead_link'",
}
REASONS_OF = {
    "too_small": ("too_small",),
    "broken": ("broken_image", "not_an_image", "empty_body"),
    "dead_link": ("http_404", "connection_refused"),
}
# What each score is meant to find.
SCORE_TARGETS = {
    "clip_similarity": ("NOT text_matches", "texts that do not tell of their picture"),
    "aesthetic": ("NOT good_looking", "blurred, noisy or pale pictures"),
    "nsfw": ("unsafe", "pictures with the marker that stands for unsafe"),
}

CHECKS = pa.schema(
    [
        ("check", pa.string()),
        ("rule", pa.string()),
        ("precision", pa.float64()),
        ("recall", pa.float64()),
        ("true_positives", pa.int64()),
        ("flagged", pa.int64()),
        ("positives", pa.int64()),
        ("note", pa.string()),
    ]
)


@dataclass(frozen=True)
class Check:
    """One detector against the truth; counts are rows."""

    check: str
    rule: str
    true_positives: int
    flagged: int
    positives: int
    note: str = ""

    @property
    def precision(self) -> float | None:
        """true_positives / flagged; None where nothing was flagged."""
        return self.true_positives / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """true_positives / positives; None where there was nothing to find."""
        return self.true_positives / self.positives if self.positives else None


def curation_checks(dataset: Dataset, truth: Path, rules: Sequence[str]) -> list[Check]:
    """Checks of the download's reasons, of each score rule, and of duplicates by edit.

    Args:
        truth: truth.parquet of the synthetic web.
        rules: the conjuncts of the selection, such as "aesthetic >= 5"; a rule flags the stored
            samples that it does not let pass.
    """
    connection = dataset.connect()
    connection.execute(
        "CREATE VIEW truth AS SELECT *, file_row_number AS row "
        f"FROM {parquet_scan(truth, file_row_number=True)}"
    )
    connection.execute("CREATE VIEW rows AS SELECT * FROM samples JOIN truth USING (row)")
    excluded = ", ".join(["key", *_shared_columns(connection)])
    connection.execute(
        f"CREATE TABLE stored AS SELECT rows.*, scores.* EXCLUDE ({excluded}) FROM rows "
        "JOIN scores USING (key) WHERE status = 'stored'"
    )

    def count(sql: str) -> tuple[int, int, int]:
        found = connection.execute(sql).fetchone()
        assert found is not None
        return int(found[0] or 0), int(found[1] or 0), int(found[2] or 0)

    def counts(flagged: str, positive: str, table: str) -> tuple[int, int, int]:
        return count(
            f"SELECT count(*) FILTER (f AND p), count(*) FILTER (f), count(*) FILTER (p) FROM "
            f"(SELECT coalesce({flagged}, true) AS f, {positive} AS p FROM {table})"
        )

    checks = []
    for name, positive in DOWNLOAD_DEFECTS.items():
        reasons = ", ".join(f"'{reason}'" for reason in REASONS_OF[name])
        flagged = f"status = 'failed' AND reason IN ({reasons})"
        checks.append(
            Check(
                f"download: {name.replace('_', ' ')}",
                f"reason in ({reasons})".replace("'", ""),
                *counts(flagged, positive, "rows"),
                "rows of the URL list",
            )
        )
    for rule in rules:
        for score, (positive, meaning) in SCORE_TARGETS.items():
            if score in rule:
                checks.append(
                    Check(
                        f"filter: {score.replace('_', ' ')}",
                        rule,
                        *counts(f"NOT ({rule})", positive, "stored"),
                        meaning,
                    )
                )
    checks += _duplicate_checks(connection)
    connection.close()
    return checks


def caption_checks(dataset: Dataset, truth: Path, kinds: Sequence[str], source: str) -> list[Check]:
    """Object precision and recall (right colour, shape and place) of accepted captions.

    A short caption names one object by design, so its recall counts the main object alone.
    """
    from pipelines.world.caption_truth import world_truth
    from recaption.judging.caption_sets import CaptionSet, sample_captions

    known = world_truth(dataset, truth)
    checks = []
    for kind in kinds:
        one = CaptionSet(source, kind)
        every = sample_captions(dataset, [one], len(known.scenes), among=known.keys())
        keys = every.tables[one].column("key").to_pylist()
        # A kind of which nothing was accepted said nothing, and found nothing.
        tallies = known.judge(keys, every.texts(one)).tallies if keys else {}
        tally = tallies.get("whole" if kind == "descriptive" else "main")
        counts = (0, 0, 0) if tally is None else (tally.right, tally.stated, tally.there)
        note = (
            "objects with right colour, shape and place"
            if kind == "descriptive"
            else "the main object, right in colour and shape"
        )
        right, stated, there = (int(np.sum(count)) for count in counts)
        checks.append(Check(f"captions: {kind}", f"by {source}", right, stated, there, note))
    return checks


def checks_table(checks: Sequence[Check]) -> pa.Table:
    """The checks in the schema CHECKS."""
    rows = [
        {**vars(check), "precision": check.precision, "recall": check.recall} for check in checks
    ]
    return pa.Table.from_pylist(rows, schema=CHECKS)


def checks_text(checks: Sequence[Check]) -> str:
    """A plain-text table of the checks."""
    width = max(len(check.check) for check in checks) + 2
    lines = ["against ground truth".ljust(width) + "precision  recall   right/flagged/there"]
    for check in checks:
        lines.append(
            check.check.ljust(width)
            + f"{_share(check.precision):>9}  {_share(check.recall):>6}   "
            + f"{check.true_positives}/{check.flagged}/{check.positives}"
        )
    return "\n".join(lines)


def _duplicate_checks(connection: object) -> list[Check]:
    """Pairs found against groups of the truth (precision), and edits found (recall)."""
    run = connection.execute  # type: ignore[attr-defined]
    checks = []
    for (method,) in run("SELECT DISTINCT method FROM duplicate_pairs ORDER BY 1").fetchall():
        right, pairs = run(
            "SELECT count(*) FILTER (a.duplicate_group = b.duplicate_group "
            "AND a.duplicate_group >= 0), count(*) FROM duplicate_pairs p "
            "JOIN stored a ON p.key_a = a.key JOIN stored b ON p.key_b = b.key "
            "WHERE p.method = ?",
            [method],
        ).fetchone()
        there = run(
            "SELECT count(*) FROM stored a JOIN stored b ON a.duplicate_group = b.duplicate_group "
            "AND a.duplicate_group >= 0 AND a.key < b.key"
            + (" AND a.sha256 = b.sha256" if method == "exact" else "")
        ).fetchone()[0]
        checks.append(
            Check(f"duplicate pairs: {method}", f"method = {method}", right, pairs, there, "pairs")
        )
    for (edit,) in run(
        "SELECT DISTINCT edit FROM stored WHERE edit NOT IN ('', 'original') ORDER BY 1"
    ).fetchall():
        # An edited copy counts as found if any pair ties it to a member of its own group.
        found, there = run(
            "SELECT count(*) FILTER (EXISTS (SELECT 1 FROM duplicate_pairs p JOIN stored o "
            "ON o.key = CASE WHEN p.key_a = e.key THEN p.key_b ELSE p.key_a END "
            "WHERE (p.key_a = e.key OR p.key_b = e.key) "
            "AND o.duplicate_group = e.duplicate_group)), count(*) FROM stored e "
            "WHERE e.edit = ? AND EXISTS (SELECT 1 FROM stored o "
            "WHERE o.duplicate_group = e.duplicate_group AND o.key <> e.key)",
            [edit],
        ).fetchone()
        # Precision belongs to pairs, above; an edit alone has a recall.
        checks.append(Check(f"duplicates: {edit}", "any method", found, 0, there, "copies"))
    return checks


def _shared_columns(connection: object) -> list[str]:
    """Columns of scores that samples or truth hold as well (such as width)."""
    run = connection.execute  # type: ignore[attr-defined]

    def names(view: str) -> set[str]:
        return {row[0] for row in run(f"DESCRIBE {view}").fetchall()}

    return sorted((names("scores") & names("rows")) - {"key"})


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
