"""Values of prompt variables that come out of the dataset's columns, by SQL, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from curate.base.errors import ConfigError
from curate.selection.rules import split_rules
from curate.store.dataset import Dataset
from curate.store.sample_view import SampleTables


class PromptColumns:
    """Variable -> SQL expression over one sample, as `caplab select --where` sees it; picklable.

    All columns of samples, scores, duplicates and references can be named. Those that are counted
    over the whole dataset (text_count and the like, curate.store.sample_lookups) cannot.
    """

    def __init__(self, expressions: Mapping[str, str], dataset: Dataset | None = None) -> None:
        """Check every expression against the dataset.

        Raises:
            ConfigError: not an expression about one sample, or an unknown column; or there are
                expressions and no dataset.
        """
        self.expressions = dict(expressions)
        self._shard: tuple[str, dict[str, dict[str, str]]] | None = None
        if not self.expressions:
            return
        if dataset is None:
            raise ConfigError("Prompt columns need a dataset to be read from.")
        tables = SampleTables(dataset, next(iter(dataset.shards()), None))
        for name, expression in self.expressions.items():
            try:
                # No row is asked for, but DuckDB finds mistaken types.
                tables.connection.execute(f"{self._sql([name], tables)} LIMIT 0")
            except (ConfigError, duckdb.Error) as error:
                reason = str(error).splitlines()[0]
                raise ConfigError(f"prompt_columns, {name} = {expression!r}: {reason}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shard": None}

    def values(self, dataset: Dataset, shard: str, keys: Sequence[str]) -> list[Mapping[str, str]]:
        """Each sample's values, in the order of `keys`; a variable without one is left out.

        A list reads "a, b, c". The last shard's values stay in memory.
        """
        if not self.expressions:
            return [{}] * len(keys)
        if self._shard is None or self._shard[0] != shard:
            self._shard = (shard, self._read(dataset, shard))
        return [self._shard[1].get(key, {}) for key in keys]

    def _read(self, dataset: Dataset, shard: str) -> dict[str, dict[str, str]]:
        tables = SampleTables(dataset, shard)
        sql = self._sql(list(self.expressions), tables)
        try:
            rows = tables.lock().connection.execute(sql).fetchall()
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"prompt_columns cannot be read for shard {shard}: {reason}"
            ) from error
        names = list(self.expressions)
        return {
            key: {n: text for n, v in zip(names, found, strict=True) if (text := _text(v))}
            for key, *found in rows
        }

    def _sql(self, names: Sequence[str], tables: SampleTables) -> str:
        used: list[str] = []
        for name in names:
            for rule in split_rules(tables.connection, self.expressions[name], tables.columns):
                used += rule.columns
        values = ", ".join(f"({self.expressions[name]}) AS v{i}" for i, name in enumerate(names))
        return f"SELECT key, {values} FROM ({tables.source(used)})"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(part) for part in value if part is not None)
    return str(value).strip()
