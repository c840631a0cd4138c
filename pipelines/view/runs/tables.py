"""Small tables and records of runs, as the page's JSON takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from curate.base.errors import DatasetError
from curate.base.files import read_record
from pipelines.report.palette import Palette
from pipelines.report.svg import OUTLINES
from pipelines.terminal.failures import first_line
from pipelines.view.answers import Asked
from pipelines.view.opened import Opened


def run_of(opened: Opened, asked: Asked) -> Path:
    """The training run that is asked for: the opened one, or one of a study by `arm` and `seed`.

    Raises:
        DatasetError: the study has no such run.
    """
    if opened.kind == "run":
        return opened.directory
    wanted = asked.text("arm"), asked.text("seed")
    for row in read_record(opened.directory / "run.json").get("runs", []):
        if wanted == ("", "") or wanted == (row["arm"], str(row["seed"])):
            return opened.directory / row["run"]
    raise DatasetError(f"This study has no run of the arm {wanted[0]!r} with seed {wanted[1]!r}.")


def rows(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The result of a query on files of a run or a study, one dict a row; for many threads.

    Raises:
        DatasetError: a file cannot be read.
    """
    try:
        cursor = connection.cursor().execute(sql, dict(parameters or {}))
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except duckdb.Error as error:
        raise DatasetError(f"A table cannot be read ({first_line(error)}).") from error


def marks(palette: Palette, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> class of its colour, and the outline of its mark (null: a circle), as in reports."""
    return {
        name: {"css": palette.css(name), "outline": OUTLINES.get(palette.marker(name))}
        for name in names
    }
