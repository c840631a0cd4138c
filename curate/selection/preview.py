"""What a rule would select, and what drops each of the others; nothing is stored.

The very steps of `select`: the rules worked out, counted alone and in order, copies dropped last
among those that pass. Only the keys are not written.

Cost: at 860,000 stored samples in a copy in DuckDB's own format (SampleTables.read_copy), 0.01 s
for the counts of a few comparisons, and 0.1 s for copies; from the Parquet files, a scan or a join
of the columns that the rules read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from curate.base.errors import ConfigError
from curate.selection.funnel import RuleCount, all_of, rule_counts
from curate.selection.keep_among import Copies, put_ranks, ranks_of
from curate.selection.settings import SelectSettings
from curate.selection.work_out import (
    Rules,
    checked_values,
    first_sentence,
    work_out,
)
from curate.store.sample_view import SampleTables


@dataclass(frozen=True)
class Preview:
    """A rule on a dataset, for questions in SQL on the database of the tables it was made with.

    `source`: a SELECT of the columns that the rules read, a row a stored sample; `values`: the
    rules' booleans over it (see checked_values). `dropped`: the table (key) of the copies that are
    dropped, None where they are kept.
    """

    rules: Rules
    funnel: tuple[RuleCount, ...]
    stored: int
    source: str
    values: str
    dropped: str | None

    @property
    def kept(self) -> int:
        """How many samples the selection would have."""
        return self.funnel[-1].left

    @property
    def steps(self) -> list[str]:
        """What the number `step` of `verdicts` stands for."""
        return [count.rule for count in self.funnel]

    @property
    def keeps(self) -> str:
        """True of what is kept, in a WHERE over `verdicts`; cheaper than its `step`."""
        passes = all_of(len(self.rules.rules))
        return passes + (
            f" AND key NOT IN (SELECT key FROM {self.dropped})" if self.dropped else ""
        )

    def verdicts(self, more: Mapping[str, str] | None = None) -> str:
        """A SELECT of `key`, `step`: the number of the first step that drops the sample, null where
        it is kept, `unscored`: that step's rule is null, and the rules' values r0, r1, ...

        Args:
            more: further columns, name -> SQL over the columns that the rules read.
        """
        further = "".join(f", {sql} AS {name}" for name, sql in (more or {}).items())
        rules = range(len(self.rules.rules))
        steps = "".join(f" WHEN r{index} IS NOT TRUE THEN {index}" for index in rules)
        unscored = "".join(f" WHEN r{index} IS NOT TRUE THEN r{index} IS NULL" for index in rules)
        if self.dropped is not None:
            steps += f" WHEN key IN (SELECT key FROM {self.dropped}) THEN {len(rules)}"
        return (
            f"SELECT *, CASE{steps} END AS step, CASE{unscored} ELSE false END AS unscored "
            f"FROM (SELECT key{self.values}{further} FROM ({self.source}))"
        )


def preview(
    tables: SampleTables, settings: SelectSettings, copies: Copies, name: str = "_dropped"
) -> Preview:
    """Count what `settings.where` keeps, on the connection of `tables`.

    Args:
        copies: of the same tables (`find_copies`); their table `_copies` is on the connection.
        name: of the table of dropped copies that is made, where copies are dropped.

    Raises:
        ConfigError: a bad rule. That all stored samples are scored is for the caller to see to
            (refuse_unscored).
    """
    import duckdb

    rules = work_out(tables, settings)
    source = tables.source(rules.columns)
    values = checked_values(tables, rules.rules, source)
    passed = f"(SELECT key{values} FROM ({source}))"
    connection = tables.connection
    try:
        funnel, stored = rule_counts(connection, rules.texts, passed)
        if not settings.keep_duplicates:
            passing = f"(SELECT key FROM {passed} WHERE {all_of(len(rules.rules))})"
            ranks = ranks_of(
                connection, f"SELECT rank FROM _copies SEMI JOIN {passing} USING (key)"
            )
            step, dropped = copies.step(ranks, funnel[-1].left)
            funnel.append(step)
            put_ranks(connection, "_dropped_ranks", dropped)
            connection.execute(
                f"CREATE OR REPLACE TABLE {name} AS SELECT key FROM _copies "
                f"SEMI JOIN _dropped_ranks USING (rank)"
            )
    except duckdb.Error as error:
        raise ConfigError(f"The rules cannot be computed: {first_sentence(error)}") from error
    table = None if settings.keep_duplicates else name
    return Preview(rules, tuple(funnel), stored, source, values, table)
