"""What the dataset holds: every table with its files, rows and columns, and who made the scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from curate.scoring.scored_with import clip_models
from curate.store.contract import SCHEMAS
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section


@dataclass(frozen=True)
class Table:
    """One table, or one source of captions. Columns and version are those of its first file."""

    name: str
    files: int
    rows: int
    size: int  # bytes
    columns: list[str]
    version: str


@dataclass(frozen=True)
class Tables:
    """The facts of this section. `models`: similarity column -> CLIP model."""

    present: list[Table]
    absent: list[str]
    shards: int
    tars: int
    tar_bytes: int
    models: list[tuple[str, str]]


def compute(inputs: Inputs) -> Tables | None:
    dataset = inputs.dataset
    if dataset is None:
        return None
    present, absent = [], []
    for name in SCHEMAS:
        folder = dataset.table_directory(name)
        groups: dict[str, list[Path]] = {}
        for path in sorted(folder.glob("**/[!.]*.parquet")):
            source = path.parent.relative_to(folder).as_posix()
            groups.setdefault(name if source == "." else f"{name}/{source}", []).append(path)
        present += [_table(label, paths) for label, paths in sorted(groups.items())]
        absent += [] if groups else [name]
    tars = sorted(dataset.shard_path("x").parent.glob("[!.]*.tar"))
    models = clip_models(dataset, list(inputs.columns("scores")))
    return Tables(
        present,
        absent,
        len(dataset.shards()),
        len(tars),
        sum(path.stat().st_size for path in tars),
        [(column, model or "not on record") for column, model in models.items()],
    )


def _table(name: str, paths: list[Path]) -> Table:
    schema = pq.read_schema(paths[0])
    version = (schema.metadata or {}).get(b"caplab_schema_version", b"?").decode()
    return Table(
        name,
        len(paths),
        sum(pq.read_metadata(path).num_rows for path in paths),
        sum(path.stat().st_size for path in paths),
        list(schema.names),
        version,
    )


def draw(facts: Tables, page: Page) -> Section:
    return page.section("tables", "What the dataset holds", facts=facts)
