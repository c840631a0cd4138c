"""Which rows of an index pass a rule or lie in a selection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.selection.rule_functions import resolve
from curate.selection.rules import guarded, split_rules
from curate.store.dataset import Dataset
from curate.store.sample_view import SampleTables
from curate.store.scans import sql_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb


@contextmanager
def within(connection: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """Interrupt a rule's queries that take longer; None lets them run.

    Raises:
        ConfigError: they did.
    """
    import duckdb

    ended, slow = threading.Event(), threading.Event()

    def watch() -> None:
        if not ended.wait(seconds):
            slow.set()
            while not ended.wait(0.02):  # it may be between two queries
                connection.interrupt()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except (ConfigError, duckdb.Error) as error:
        if not slow.is_set():
            raise
        raise ConfigError(
            f"That rule takes more than {seconds:.0f} seconds; make it simpler."
        ) from error
    finally:
        ended.set()
        watcher.join()


def passing_rows(
    dataset: Dataset,
    starts: Mapping[str, int],
    total: int,
    where: str,
    selection: str | None,
    seconds: float | None = None,
) -> NDArray[np.bool_] | None:
    """(N,) whether a row's sample passes; None where everything does.

    Cost: one scan of the columns that the rule names, and of the embeddings' keys. Memory: N bytes,
    and DuckDB's table of the keys that pass.

    Args:
        starts: the first row of every shard. total: N.
        where: a rule as of `caplab select`. selection: the name of a stored one.
        seconds: that the rule may take; None sets no limit.

    Raises:
        ConfigError: the rule is wrong or takes too long, or there is no such selection.
    """
    import duckdb

    if where.strip().lower() == "true" and selection is None:
        return None
    tables = SampleTables(dataset).lock()
    with tables.connection as connection, within(connection, seconds):
        if selection is not None:
            name = f"in_selection({sql_text(selection)})"
            where = name if where.strip().lower() == "true" else f"{name} AND ({where})"
        rules = [resolve(rule, tables) for rule in split_rules(connection, where, tables.columns)]
        source = tables.source([name for rule in rules for name in rule.columns])
        passed = " AND ".join(f"({guarded(connection, rule.sql)})" for rule in rules)
        connection.execute("CREATE TEMP TABLE _starts (shard VARCHAR, start BIGINT)")
        connection.execute(
            "INSERT INTO _starts SELECT unnest($1), unnest($2)",
            [list(starts), list(starts.values())],
        )
        embedded = dataset.scan(
            "embeddings", union_by_name=True, filename=True, file_row_number=True
        )
        try:
            rows = connection.execute(
                f"SELECT start + file_row_number AS row FROM {embedded} AS embedded "
                "JOIN _starts ON shard = parse_filename(filename, true) "
                f"SEMI JOIN (SELECT key FROM ({source}) WHERE {passed}) AS passed USING (key)"
            ).fetchnumpy()["row"]
        except duckdb.Error as error:
            raise ConfigError(
                f"The rule {where!r} does not work: {str(error).splitlines()[0]}"
            ) from error
    among = np.zeros(total, bool)
    among[rows] = True
    return among
