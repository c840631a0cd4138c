"""The rules of a selection made ready on the tables: what `select` stores and a preview shows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from curate.base.errors import ConfigError, DatasetError
from curate.base.telling.words import amount
from curate.scoring.scorers.head_source import add_head_functions
from curate.selection.presets import Applied, preset_where
from curate.selection.rule_functions import Resolved, resolve
from curate.selection.rules import guarded, split_rules
from curate.selection.settings import SelectSettings
from curate.store.sample_view import SampleTables


@dataclass(frozen=True)
class Rules:
    """`where`, the preset's part included, and the rules that its top-level ANDs join."""

    where: str
    preset: Applied | None
    rules: tuple[Resolved, ...]

    @property
    def columns(self) -> list[str]:
        """All that the rules read, in `SampleTables.source`'s names."""
        return list(dict.fromkeys(name for rule in self.rules for name in rule.columns))

    @property
    def texts(self) -> list[str]:
        """The rules as people write them."""
        return [rule.text for rule in self.rules]


def refuse_unscored(tables: SampleTables) -> None:
    """Samples that came by a retry whose scoring was cut short would be missing without a word."""
    directory = tables.dataset.directory
    stored, scored = tables.connection.execute(
        "SELECT (SELECT count(*) FROM samples WHERE status = 'stored'), "
        "(SELECT count(*) FROM scores)"
    ).fetchall()[0]
    if stored > scored:
        raise DatasetError(
            f"{stored - scored:,} of {amount(stored, 'stored sample')} of {directory} have no "
            f"scores yet; `caplab score {directory}` computes them."
        )


def work_out(tables: SampleTables, settings: SelectSettings) -> Rules:
    """The rules of `settings` with every function over the whole dataset replaced by its value.

    Raises:
        ConfigError: a bad rule or preset (see split_rules, resolve and preset_where).
    """
    preset = preset_where(settings, tables.dataset, tables.columns)
    where = _joined(preset.where if preset else None, settings.where)
    add_head_functions(tables.connection, where)
    parts = split_rules(tables.connection, where, tables.columns)
    return Rules(where, preset, tuple(resolve(rule, tables) for rule in parts))


def checked_values(tables: SampleTables, rules: Sequence[Resolved], source: str) -> str:
    """SQL of each rule for a SELECT over `source`: booleans r0, r1, ..., null where a score lacks.

    Raises:
        ConfigError: a rule that DuckDB refuses, or one that is no yes or no.
    """
    import duckdb

    for rule in rules:
        try:
            kind = tables.connection.execute(
                f"SELECT key, ({rule.sql}) FROM ({source}) LIMIT 0"
            ).description
        except duckdb.Error as error:
            raise ConfigError(
                f"The rule {rule.text!r} does not work: {first_sentence(error)}"
            ) from error
        if kind is None or str(kind[1][1]).upper() not in ("BOOLEAN", "BOOL"):
            raise ConfigError(
                f"The rule {rule.text!r} is no yes or no; compare it with something, such as "
                f"{rule.text!r} >= 1."
            )
    return "".join(
        f", ({guarded(tables.connection, rule.sql)}) AS r{index}"
        for index, rule in enumerate(rules)
    )


def first_sentence(error: Exception) -> str:
    """What DuckDB says is wrong, without the kind of error and the query."""
    message = str(error).splitlines()[0]
    return re.sub(r"^\w+ Error: ", "", message).strip().rstrip(".") + "."


def _joined(preset: str | None, where: str) -> str:
    if preset is None:
        return where
    return preset if where.strip().lower() == "true" else f"({preset}) AND ({where})"
