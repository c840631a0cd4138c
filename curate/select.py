"""Selections: SQL over stored scores. Pictures are never touched, scores never change.

A rule sees one row for each stored sample, with the columns of

    samples      key, url, alt_text, width, height, original_width, original_bytes, ...
    scores       clip_similarity, aesthetic, nsfw, aspect_ratio, blur, text_words, ...
    duplicates   duplicate_exact, duplicate_near, duplicate_embedding: the sample would be dropped
                 by deduplication at that level (see curate.duplicates); duplicate: at the widest
                 level that was run. All false where no duplicates were looked for.

`SELECT * FROM curate.select.sample_view(dataset)` is the same view for one's own questions.
Cost: one scan of the columns that the rules read; a million samples take about a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from curate.dataset import Dataset
from curate.errors import ConfigError, DatasetError
from curate.files import fingerprint
from curate.provenance import provenance
from curate.rules import TOP_FRACTION, Rule, split_rules
from curate.settings import Settings

if TYPE_CHECKING:
    import duckdb

METHODS = ("exact", "near", "embedding")
NOT_DUPLICATE = "NOT duplicate"
_TABLES = ("samples", "scores", "duplicates")


class SelectSettings(Settings):
    """Which samples to select, and under which name."""

    name: str = Field(
        "default", description="Name of the selection: letters, digits, dots, dashes, underscores."
    )
    where: str = Field(
        "true",
        description="SQL expression over the columns of a sample, such as "
        '"clip_similarity >= 0.28 and aesthetic >= 5 and nsfw < 0.5"; '
        "top_fraction(clip_similarity, 0.3) is true for the best 30%.",
    )
    keep_duplicates: bool = Field(
        False, description="Keep all copies; otherwise only the best of each group of duplicates."
    )
    overwrite: bool = Field(
        False,
        description="Replace a selection of this name that has other rules or older tables.",
        json_schema_extra={"identity": False},
    )


@dataclass(frozen=True)
class RuleCount:
    """What one rule removed. Unscored rows (the rule is null) are counted apart from failed ones.

    `alone`: of all stored samples, as if it were the only rule. `in_order`: of the rows that the
    rules before it left. `left`: rows after it.
    """

    rule: str
    removed_alone: int
    unscored_alone: int
    removed_in_order: int
    unscored_in_order: int
    left: int


@dataclass(frozen=True)
class SelectionSummary:
    """A selection's counts. rows = stored + failed; stored = selected + all that rules removed."""

    name: str
    where: str
    rows: int
    stored: int
    selected: int
    funnel: tuple[RuleCount, ...]
    fresh: bool
    """False where the same selection had been stored before."""

    def text(self) -> str:
        """The funnel as a table for people."""
        width = max([len(count.rule) for count in self.funnel] + [20])
        head = f"{'rule':<{width}}  {'alone':>9}  {'in order':>9}  {'unscored':>9}  {'left':>9}"
        lines = [
            f"Selection {self.name!r}: {self.selected:,} of {self.stored:,} stored samples"
            f" ({self.rows:,} rows in the list){'' if self.fresh else ', as stored before'}",
            head,
            f"{'stored':<{width}}  {'':>9}  {'':>9}  {'':>9}  {self.stored:>9,}",
        ]
        lines += [
            f"{count.rule:<{width}}  {-count.removed_alone - count.unscored_alone:>9,}  "
            f"{-count.removed_in_order - count.unscored_in_order:>9,}  "
            f"{count.unscored_in_order:>9,}  {count.left:>9,}"
            for count in self.funnel
        ]
        return "\n".join(lines)


def select(dataset: Dataset, settings: SelectSettings) -> SelectionSummary:
    """Select samples and store their keys with the rules, the funnel and what they rest on.

    The same rules over unchanged tables are a no-op.

    Raises:
        ConfigError: a bad name or rule, or a name that stands for other rules (or was made from
            older tables) without `overwrite`. Nothing is written then.
        DatasetError: nothing has been stored or scored yet.
    """
    check_name(settings.name)
    version = tables_version(dataset)
    previous = _previous(dataset, settings, version)
    if previous is not None:
        return previous
    with sample_view(dataset) as connection:
        columns = [row[0] for row in connection.execute("DESCRIBE sample").fetchall()]
        rules = split_rules(connection, settings.where, columns)
        if not settings.keep_duplicates:
            rules.append(Rule(NOT_DUPLICATE, ("duplicate",)))
        _evaluate(connection, rules)
        funnel, stored, selected = _funnel(connection, rules)
        keys = connection.sql(
            f"SELECT key FROM passed WHERE {_all(len(rules))} ORDER BY key"
        ).to_arrow_table()
        total = connection.execute("SELECT count(*) FROM samples").fetchall()[0][0]
    summary = SelectionSummary(
        settings.name, settings.where, int(total), stored, selected, funnel, True
    )
    record = {
        "where": settings.where,
        "rules": [rule.text for rule in rules],
        "keep_duplicates": settings.keep_duplicates,
        "rows": summary.rows,
        "stored": stored,
        "selected": selected,
        "funnel": [asdict(count) for count in funnel],
        "tables_version": version,
        **provenance(settings),
    }
    dataset.write_selection(settings.name, keys.column("key").combine_chunks(), record)
    return summary


def check_name(name: str) -> None:
    """Raise ConfigError for a name that is no plain file name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}", name):
        raise ConfigError(
            f"{name!r} cannot name a selection; use letters, digits, dots, dashes, underscores."
        )


def sample_view(dataset: Dataset) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the view `sample`; it can read the dataset's tables, no other file.

    Raises:
        DatasetError: nothing has been scored yet.
    """
    if not dataset.has_table("samples") or not dataset.has_table("scores"):
        raise DatasetError(
            f"{dataset.directory} has no scores yet; finish `caplab curate` on it first."
        )
    connection = dataset.connect()
    # The samples table says what a sample is; a score of the same name would be a second truth.
    shared = _columns(connection, "scores") & _columns(connection, "samples")
    excluded = ", ".join(sorted(shared))
    flags = ", ".join(
        f"bool_or(method = '{method}' AND NOT kept) AS duplicate_{method}" for method in METHODS
    )
    falses = ", ".join(f"coalesce(duplicate_{m}, false) AS duplicate_{m}" for m in METHODS)
    connection.execute(f"CREATE VIEW _flags AS SELECT key, {flags} FROM duplicates GROUP BY key")
    # Levels are cumulative, so the widest one that was run decides `duplicate`.
    ranks = " ".join(f"WHEN '{method}' THEN {rank}" for rank, method in enumerate(METHODS))
    connection.execute(
        "CREATE TABLE _widest AS SELECT coalesce(max(CASE method "
        f"{ranks} END), 0) AS rank FROM duplicates"
    )
    duplicate = " ".join(
        f"WHEN {rank} THEN coalesce(duplicate_{method}, false)"
        for rank, method in enumerate(METHODS)
    )
    connection.execute(
        f"CREATE VIEW sample AS SELECT samples.*, scores.* EXCLUDE ({excluded}), {falses}, "
        f"CASE _widest.rank {duplicate} END AS duplicate "
        "FROM samples JOIN scores USING (key) LEFT JOIN _flags USING (key) CROSS JOIN _widest "
        "WHERE status = 'stored'"
    )
    connection.execute(
        f"CREATE MACRO {TOP_FRACTION}(x, f) AS CASE WHEN x IS NOT NULL THEN "
        "rank() OVER (ORDER BY x DESC NULLS LAST) <= ceil(f * count(*) OVER ()) END"
    )
    folder = str(dataset.directory / "tables").replace("'", "''")
    connection.execute(f"SET allowed_directories = ['{folder}']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def tables_version(dataset: Dataset, tables: Sequence[str] = _TABLES) -> str:
    """A fingerprint of tables (those that a selection reads): changes whenever one of them does.

    Hashes the name, size and footer of each Parquet file (its statistics and column checksums of
    every row group), not the rows: milliseconds a file.
    """
    marks: list[Any] = []
    for table in tables:
        folder = dataset.table_directory(table)
        for path in sorted(folder.glob("[!.]*.parquet")):
            marks.append([table, path.name, path.stat().st_size, _tail(path)])
    return fingerprint(marks)


def _tail(path: Path, size: int = 1 << 16) -> str:
    import hashlib

    with open(path, "rb") as opened:
        opened.seek(max(0, path.stat().st_size - size))
        return hashlib.sha256(opened.read()).hexdigest()


def _previous(dataset: Dataset, settings: SelectSettings, version: str) -> SelectionSummary | None:
    """The stored selection where it is this one; ConfigError where it is another."""
    if not dataset.selection_path(settings.name).exists():
        return None
    record = dataset.selection_record(settings.name)
    same_rules = (record["where"], record["keep_duplicates"]) == (
        settings.where,
        settings.keep_duplicates,
    )
    if same_rules and record["tables_version"] == version:
        return summary_of(record, settings.name)
    if settings.overwrite:
        return None
    reason = (
        "was made from an earlier state of the tables"
        if same_rules
        else f"stands for {record['where']!r}"
        + (" with duplicates kept" if record["keep_duplicates"] else "")
    )
    raise ConfigError(
        f"The selection {settings.name!r} exists and {reason}; choose another --name, "
        f"or say --overwrite."
    )


def _evaluate(connection: duckdb.DuckDBPyConnection, rules: Sequence[Rule]) -> None:
    """Make the table `passed`: key and r0, r1, ...: true, false or null for each rule."""
    import duckdb

    for rule in rules:
        try:
            kind = connection.execute(f"SELECT key, ({rule.text}) FROM sample LIMIT 0").description
        except duckdb.Error as error:
            raise ConfigError(f"The rule {rule.text!r} does not work: {_first(error)}") from error
        if kind is None or str(kind[1][1]).upper() not in ("BOOLEAN", "BOOL"):
            raise ConfigError(
                f"The rule {rule.text!r} is no yes or no; compare it with something, such as "
                f"{rule.text!r} >= 1."
            )
    values = ", ".join(f"({rule.text}) AS r{index}" for index, rule in enumerate(rules))
    try:
        connection.execute(f"CREATE TABLE passed AS SELECT key, {values} FROM sample")
    except duckdb.Error as error:
        raise ConfigError(f"The rules cannot be computed: {_first(error)}") from error


def _funnel(
    connection: duckdb.DuckDBPyConnection, rules: Sequence[Rule]
) -> tuple[tuple[RuleCount, ...], int, int]:
    """Counts of each rule, stored samples, selected samples: one scan."""
    parts = ["count(*)"]
    for index in range(len(rules)):
        before = _all(index)
        parts += [
            f"count(*) FILTER (NOT r{index})",
            f"count(*) FILTER (r{index} IS NULL)",
            f"count(*) FILTER ({before} AND NOT r{index})",
            f"count(*) FILTER ({before} AND r{index} IS NULL)",
            f"count(*) FILTER ({_all(index + 1)})",
        ]
    row = connection.execute(f"SELECT {', '.join(parts)} FROM passed").fetchall()[0]
    counts = [int(value) for value in row]
    stored = counts[0]
    funnel = tuple(
        RuleCount(rule.text, *counts[1 + 5 * index : 6 + 5 * index])
        for index, rule in enumerate(rules)
    )
    return funnel, stored, funnel[-1].left if funnel else stored


def _all(count: int) -> str:
    """Rules 0 to count - 1 are true."""
    return " AND ".join(["true", *(f"r{index}" for index in range(count))])


def _columns(connection: duckdb.DuckDBPyConnection, view: str) -> set[str]:
    return {row[0] for row in connection.execute(f"DESCRIBE {view}").fetchall()}


def _first(error: Exception) -> str:
    message = str(error).splitlines()[0]
    return re.sub(r"^\w+ Error: ", "", message).strip().rstrip(".") + "."


def summary_of(record: Mapping[str, Any], name: str) -> SelectionSummary:
    """The summary of a stored selection's record (`Dataset.selection_record`)."""
    funnel = tuple(RuleCount(**count) for count in record["funnel"])
    return SelectionSummary(
        name, record["where"], record["rows"], record["stored"], record["selected"], funnel, False
    )
