"""Selections: SQL over stored scores. Pictures are never touched, scores never change.

A rule sees one row for each stored sample (curate.store.sample_view has its columns) and may
call the functions of curate.selection.rule_functions (fractions, other selections). A preset
(curate.selection.presets) is a published recipe written as such a rule. Copies are dropped
among the samples that passed everything else (curate.selection.keep_among), so that a group whose
best copy fails a rule keeps its next. Then groups are capped and weighted, where that is asked
(curate.selection.balance).

Cost: one scan of the columns that the rules read, one of the keys, and what the pairs of
duplicates cost; `caplab bench select` measures it at a million samples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.provenance import provenance
from curate.scoring.whole.targets import reference_mark
from curate.selection.balance import balance, resolve_balance
from curate.selection.funnel import RuleCount, SelectionSummary, all_of, rule_counts, summary_of
from curate.selection.keep_among import find_copies, put_ranks, ranks_of
from curate.selection.near_reference import NearReference
from curate.selection.rule_functions import Resolved
from curate.selection.settings import SelectSettings
from curate.selection.work_out import (
    Rules,
    checked_values,
    first_sentence,
    refuse_unscored,
    work_out,
)
from curate.store.dataset import Dataset
from curate.store.holes import json_damage, refuse_holes
from curate.store.lock import writing
from curate.store.sample_view import (
    SampleTables,
    file_mark,
    tables_version,
)

_TABLE = "table "  # no selection's name holds a space


def select(dataset: Dataset, settings: SelectSettings) -> SelectionSummary:
    """Select samples and store their keys with the rules, the funnel and what they rest on.

    The same settings over unchanged tables are a no-op.

    Raises:
        ConfigError: a bad name, rule or preset, a column that the preset needs and nobody
            computed, or a name that stands for another selection (or one made from older tables)
            without `overwrite`. Nothing is written then.
        DatasetError: nothing has been stored or scored yet.
    """
    check_name(settings.name)
    refuse_holes(dataset, but=("captions",))
    previous = _previous(dataset, settings)
    if previous is not None:
        return previous
    with writing(dataset.directory, f"selections/{settings.name}"):
        return _previous(dataset, settings) or _select(dataset, settings)


def _select(dataset: Dataset, settings: SelectSettings) -> SelectionSummary:
    tables = SampleTables(dataset)
    with tables.connection as connection:
        refuse_unscored(tables)
        reference = _reference(dataset, settings)
        if reference is not None:
            tables.add_keys("near_reference", reference.register(connection))
        tables.lock()
        ruled = work_out(tables, settings)
        rules = ruled.rules
        groups = resolve_balance(tables, settings.balance) if settings.balance else None
        _evaluate(tables, ruled)
        funnel, stored = rule_counts(connection, ruled.texts)
        dropped: dict[str, Any] | None = None
        if not settings.keep_duplicates:
            dropped = _drop_copies(tables, settings, len(rules), funnel, stored)
        chosen = "key NOT IN (SELECT key FROM _dropped)" if dropped else "true"
        rows = f"SELECT key FROM passed WHERE {all_of(len(rules))} AND {chosen}"
        balanced: dict[str, Any] | None = None
        if groups is not None:
            done = balance(tables, groups, settings.cap, rows)
            if settings.cap is not None:
                funnel.append(done.step(groups.text, settings.cap, funnel[-1].left))
            rows, balanced = "SELECT key, weight FROM _balanced", done.record
        keys = connection.sql(f"{rows} ORDER BY key").to_arrow_table()
        total = connection.execute("SELECT count(*) FROM samples").fetchall()[0][0]
    selected = keys.num_rows
    summary = SelectionSummary(
        settings.name, ruled.where, int(total), stored, selected, tuple(funnel), True, balanced
    )
    record = {
        "where": ruled.where,
        "rules": ruled.texts,
        "sql": [rule.sql for rule in rules],
        "fractions": [asdict(part) for rule in rules for part in rule.fractions],
        "preset": ruled.preset.record() if ruled.preset else None,
        "duplicates": dropped,
        "keep_duplicates": settings.keep_duplicates,
        "balance": balanced,
        "reference": reference.record() if reference else None,
        "rows": summary.rows,
        "stored": stored,
        "selected": selected,
        "funnel": [asdict(count) for count in funnel],
        "tables_version": tables_version(dataset),
        "rests_on": _rests_on(dataset, tables, [*rules, *([groups] if groups else [])]),
        **provenance(settings),
    }
    dataset.write_selection(
        settings.name,
        keys.column("key").combine_chunks(),
        record,
        keys.column("weight").combine_chunks() if balanced else None,
    )
    return summary


def check_name(name: str) -> None:
    """Raise ConfigError for a name that is no plain file name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}", name):
        raise ConfigError(
            f"{name!r} cannot name a selection; use letters, digits, dots, dashes, underscores."
        )


def _reference(dataset: Dataset, settings: SelectSettings) -> NearReference | None:
    if settings.reference is None:
        return None
    return NearReference(
        dataset,
        Path(settings.reference),
        settings.reference_clusters,
        settings.reference_embedding,
    )


def _previous(dataset: Dataset, settings: SelectSettings) -> SelectionSummary | None:
    """The stored selection where it is this one; ConfigError where it is another."""
    if not dataset.selection_path(settings.name).exists():
        return None
    if settings.overwrite and json_damage(
        dataset.selection_path(settings.name).with_suffix(".json")
    ):
        return None
    record = dataset.selection_record(settings.name)
    stored = record.get("settings", {})
    mine = settings.identity()
    differing = [name for name in mine if stored.get(name) != mine[name]]
    same_reference = (record.get("reference") or {}).get("mark") == reference_mark(
        settings.reference
    )
    if not differing and same_reference and _current(dataset, record):
        return summary_of(record, settings.name)
    if settings.overwrite:
        return None
    if not differing:
        reason = "was made from an earlier state of the tables"
    elif set(differing) <= {"where", "preset", "preset_values", "preset_columns"}:
        reason = f"stands for {record['where']!r}"
    else:
        name = differing[0]
        reason = f"was made with {name} = {stored.get(name)!r}, not {mine[name]!r}"
    raise ConfigError(
        f"The selection {settings.name!r} exists and {reason}; choose another --name, "
        f"or say --overwrite."
    )


def _current(dataset: Dataset, record: Mapping[str, Any]) -> bool:
    """Whether everything that a stored selection rests on is as it was."""
    if record.get("tables_version") != tables_version(dataset):
        return False
    marks: Mapping[str, str] = record.get("rests_on", {})
    return all(_selection_mark(dataset, name) == mark for name, mark in marks.items())


def _rests_on(
    dataset: Dataset, tables: SampleTables, rules: Sequence[Resolved]
) -> dict[str, str | None]:
    """Selections and further tables that the rules name -> a mark of their content."""
    names = {name for rule in rules for name in rule.selections}
    names |= {_TABLE + name for rule in rules for name in tables.tables_of(rule.columns)}
    return {name: _selection_mark(dataset, name) for name in sorted(names)}


def _selection_mark(dataset: Dataset, name: str) -> str | None:
    if name.startswith(_TABLE):
        return tables_version(dataset, [name.removeprefix(_TABLE)])
    path = dataset.selection_path(name)
    return fingerprint([path.stat().st_size, file_mark(path)]) if path.exists() else None


def _evaluate(tables: SampleTables, ruled: Rules) -> None:
    """Make the table `passed`: key and r0, r1, ...: true, false or null for each rule."""
    import duckdb

    source = tables.source(ruled.columns)
    values = checked_values(tables, ruled.rules, source)
    try:
        # Keys are sorted in the end; their order on the way is nobody's business.
        tables.connection.execute(f"CREATE TEMP TABLE passed AS SELECT key{values} FROM ({source})")
    except duckdb.Error as error:
        raise ConfigError(f"The rules cannot be computed: {first_sentence(error)}") from error


def _drop_copies(
    tables: SampleTables, settings: SelectSettings, rules: int, funnel: list[RuleCount], stored: int
) -> dict[str, Any]:
    """Apply the keep rule, make the table `_dropped` and append its step to the funnel."""
    connection = tables.connection
    copies = find_copies(tables, settings.duplicate_level, settings.quality)
    passing = f"(SELECT key FROM passed WHERE {all_of(rules)})"
    ranks = ranks_of(connection, f"SELECT rank FROM _copies SEMI JOIN {passing} USING (key)")
    step, dropped = copies.step(ranks, funnel[-1].left if funnel else stored)
    put_ranks(connection, "_dropped_ranks", dropped)
    connection.execute(
        "CREATE TEMP TABLE _dropped AS SELECT key FROM _copies "
        "SEMI JOIN _dropped_ranks USING (rank)"
    )
    funnel.append(step)
    return copies.record()
