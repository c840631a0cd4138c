"""An input that was looked at, and its rows as a stream: from front to back, once.

What is wrong with the input as a whole is a ConfigError of `curate.intake.inspection`; what is
wrong with a row is that row's failure.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.reasons import Failure, Reason, printable
from curate.base.telling.words import amount
from curate.intake.column_types import ColumnTypes
from curate.intake.columns import (
    TEXT_COLUMNS,
    URL_COLUMNS,
    find_column,
    hash_name,
    is_score,
)
from curate.intake.folders import is_hidden, is_picture, read_folder
from curate.intake.left_out import LeftOut, Why
from curate.intake.locations import Store
from curate.intake.parquet_lists import (
    ParquetColumns,
    open_parquet,
    parquet_batches,
    row_count,
    text_counts,
)
from curate.intake.rows import Record, broken, local_identity, text_problem, texts_given
from curate.intake.settings import InputFormat
from curate.intake.tars import not_downloaded, read_tar, sidecar_names
from curate.intake.text_form import (
    is_gzip,
)
from curate.intake.text_lists import TextKind, read_text_list
from curate.intake.texts import NoTextError, texts_of, value_at, with_spelled

TYPED_ROWS = 1000  # rows from which the columns of a text file or sidecar are taken
_COUNTED_BYTES = 64 << 20  # lists and tars below this are counted, above it estimated ...
_LOOKED_AT_BYTES = 1 << 20  # ... from as much of a list, or from the first tar
_COUNTED_FILES = 20_000  # of a folder of pictures, whose texts and JSON are read to count


@dataclass(frozen=True)
class Survey:
    """What an input holds, as far as that can be said without reading all of a large one."""

    rows: int | None  # None: not counted
    exact: bool
    captions: int | None = None  # texts of all rows; None where no row has several, or unknown
    pictures: int | None = None  # rows that have a text
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True)
class Source:
    """An input that was looked at: what it is, and how to read it."""

    given: str
    format: InputFormat
    store: Store
    files: tuple[str, ...]  # relative paths; empty for a folder of pictures, which is walked
    url_column: str | None
    text_column: str | None
    image_column: str | None
    columns: dict[str, str]  # every other column -> its type, in Arrow's words
    imported: dict[str, str]  # column -> its name in the scores table
    local: bool
    """Whether the pictures are here already, so that nothing is downloaded."""
    import_columns: tuple[str, ...] = ()
    """Further columns that the user wants as scores."""
    encoding: str | None = None
    """Of a list in text, where the user names it."""
    all_seen: bool = True
    """Whether `columns` are those of all rows, not of the first ones alone."""
    parquet: ParquetColumns | None = None
    whole: bool = False
    """Whether a folder was given, so that its other files are told."""
    namespace: str = ""
    """Stands before the places that identify rows without a URL; see curate.intake.lists.join."""

    def column_types(self) -> ColumnTypes | None:
        """Empty, to be filled by `batches`; None for Parquet, which tells its types itself."""
        if self.parquet is not None:
            return None
        return ColumnTypes(
            self.local,
            self.format in ("csv", "tsv"),
            lambda name: is_score(name) or name in self.import_columns,
        )

    @property
    def address(self) -> str:
        """What was given, absolute, so that two runs can tell whether they mean the same."""
        if len(self.files) == 1:
            return self.store.show(self.files[0])
        files = amount(len(self.files), "file")
        names = f" ({files}: {fingerprint(self.files)})" if self.files else ""
        return self.store.show() + names

    def batches(
        self, rows: int, types: ColumnTypes | None, left_out: LeftOut | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows in order, in batches of at most `rows`.

        Args:
            types: of `column_types`; the batches are staged and take their types from it in the
                end. Later ones may have further columns.
            left_out: takes what becomes no row.
        """
        if self.parquet is None:
            assert types is not None
            records = self.records(left_out)
            while some := list(itertools.islice(records, rows)):
                yield types.staged(some)
            return
        for path in self.files:
            yield from parquet_batches(self.store, path, self.parquet, rows)
        self._note_beside(left_out)

    def records(self, left_out: LeftOut | None = None) -> Iterator[Record]:
        """The rows one by one (not of Parquet)."""
        if self.format == "folder":
            names = sidecar_names(self.url_column, self.text_column)
            yield from read_folder(self.store, names, left_out)
            return
        for path in self.files:
            yield from self._file_records(path, left_out)
        self._note_beside(left_out)

    def _note_beside(self, left_out: LeftOut | None) -> None:
        """Name the files of a folder that is read for its tars or lists, and that are neither."""
        if left_out is None or not self.whole or self.format == "folder":
            return
        read = {*self.files}
        if self.format == "webdataset":
            read |= {f"{_base(path)}.parquet" for path in self.files}
            read |= {f"{_base(path)}_stats.json" for path in self.files}
        for path in self.store.walk(hidden=True):
            if path not in read:
                left_out.note(Why.HIDDEN if is_hidden(path) else Why.BESIDE, path)

    def _file_records(self, path: str, left_out: LeftOut | None = None) -> Iterator[Record]:
        if self.format == "webdataset":
            seen: set[str] = set()
            names = sidecar_names(self.url_column, self.text_column)
            for record in read_tar(self.store, path, names, left_out):
                if record.key is not None:
                    seen.add(os.path.basename(record.key))
                yield record
            companion = _companion(self.store, path)
            if companion is not None:
                yield from _rows_of_companion(self.store, *companion, seen)
            return
        kind = text_kind(self.format)
        found = read_text_list(self.store, path, kind, self.encoding, self.url_column)
        yield from _list_records(found, path, kind, self.url_column, self.text_column)

    def survey(self) -> Survey:
        """Count rows, captions and files that become no row; what is large is estimated."""
        if self.parquet is not None:
            left_out = LeftOut()
            self._note_beside(left_out)
            rows = row_count(self.store, list(self.files))
            counts = text_counts(self.store, list(self.files), self.parquet)
            return Survey(rows, True, counts[0], counts[1], left_out)
        if self.format == "folder":
            paths = list(itertools.islice(self.store.walk(), _COUNTED_FILES + 1))
            if len(paths) <= _COUNTED_FILES:
                return self._counted()
            return Survey(sum(is_picture(path) for path in self.store.walk()), False)
        sizes = [self.store.state(path)[0] for path in self.files]
        if sum(sizes) <= _COUNTED_BYTES:
            return self._counted()
        first = self.files[0]
        if is_gzip(self.store, first):
            return Survey(None, False)
        left_out = LeftOut()
        if self.format == "webdataset":
            rows, read = sum(1 for _ in self._file_records(first, left_out)), sizes[0]
        else:
            with self.store.open(first) as stream:
                start = stream.read(_LOOKED_AT_BYTES)
            rows, read = start.count(b"\n"), len(start)
        return Survey(round(rows * sum(sizes) / max(1, read)), False, left_out=left_out)

    def _counted(self) -> Survey:
        left_out = LeftOut()
        rows = captions = pictures = several = 0
        for record in self.records(left_out):
            rows += 1
            if record.failure is None and record.text is not None:
                pictures += 1
                captions += len(record.texts or [record.text])
                several += record.texts is not None
        if not several:
            return Survey(rows, True, left_out=left_out)
        return Survey(rows, True, captions, pictures, left_out)

    def describe(self) -> str:
        """What was recognised, for a person: format, files, columns, imported scores."""
        shown = self.store.show(self.files[0]) if len(self.files) == 1 else self.store.show()
        what = {"webdataset": "WebDataset tars", "folder": "a folder of pictures"}.get(
            self.format, f"a list in {SHOWN.get(self.format, '')}"
        )
        if self.image_column:
            what = f"Parquet with pictures in the column {self.image_column!r}"
        files = f", {amount(len(self.files), 'file')}" if len(self.files) > 1 else ""
        url, text = self.url_column or "none", self.text_column or "none"
        if self.format in ("webdataset", "folder"):
            url, text = self.url_column or "from JSON, if there", self.text_column or ".txt or JSON"
        lines = [f"input: {what} ({shown}{files})", f"  URL: {url}", f"  text: {text}"]
        others = [f"{name} ({kind})" for name, kind in self.columns.items()]
        seen = "" if self.all_seen else f" (by the first {TYPED_ROWS:,} rows; all decide)"
        lines.append(f"  other columns, kept{seen}: {', '.join(others) or 'none'}")
        scores = [f"{name} as {own}" for name, own in self.imported.items()]
        lines.append(f"  imported as scores: {', '.join(scores) or 'none'}")
        hashes = [name for name in self.columns if hash_name(name)]
        if hashes and not self.local:
            lines.append(f"  hashes in the list: {', '.join(hashes)}")
        return "\n".join(lines)


SHOWN = {
    "parquet": "Parquet",
    "csv": "CSV",
    "tsv": "TSV",
    "jsonl": "JSON lines",
    "json": "JSON",
    "text": "plain text, a URL a line",
}


def text_kind(kind: InputFormat) -> TextKind:
    """The same, of a list in text; ValueError for the other formats."""
    if kind in ("parquet", "webdataset", "folder"):
        raise ValueError(f"{kind} is no list in text")
    return kind  # type: ignore[return-value]


def _list_records(
    rows: Iterable[tuple[int, Mapping[str, Any] | Failure]],
    path: str,
    kind: TextKind,
    url_column: str | None,
    text_column: str | None,
) -> Iterator[Record]:
    for number, found in rows:
        if isinstance(found, Failure):
            yield broken(path, "damage" if number < 0 else number, found)
            continue
        link = value_at(found, url_column)
        if isinstance(link, list | dict):
            shown = printable(f"the URL is a {type(link).__name__}: {json.dumps(link)}")[:300]
            yield broken(path, number, Failure(Reason.UNREADABLE_ROW, shown))
            continue
        url = _value(link)
        fields = {n: v for n, v in found.items() if n not in (url_column, text_column)}
        if kind in ("csv", "tsv"):
            found = with_spelled(found, text_column)
        try:
            texts, no_text = texts_of(value_at(found, text_column), text_column), None
        except NoTextError as error:
            texts, no_text = [], error
        problem = str(no_text) if no_text else text_problem(url, *texts)
        if problem is not None:
            failure = Failure(Reason.UNREADABLE_ROW, printable(f"line {number}: {problem}"))
            known = url if text_problem(url) is None else None
            yield broken(path, number, failure, url=known, no_text=no_text)
            continue
        yield Record(url=url, **texts_given(texts), fields=fields)


def _value(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _base(path: str) -> str:
    """A tar's path without its ending."""
    return next(path[: -len(e)] for e in (".tar.gz", ".tgz", ".tar", "") if path.endswith(e))


def _companion(store: Store, path: str) -> tuple[str, dict[str, str | None]] | None:
    """img2dataset's Parquet beside a tar, and its URL and text columns."""
    beside = f"{_base(path)}.parquet"
    try:
        store.state(beside)
        with open_parquet(store, beside) as parquet:
            schema = parquet.schema_arrow
    except (OSError, ConfigError):
        return None
    if not _is_companion(schema):
        return None
    columns = {
        "url": find_column(schema.names, URL_COLUMNS),
        "text": find_column(schema.names, TEXT_COLUMNS),
    }
    return beside, columns


def _rows_of_companion(
    store: Store, path: str, columns: Mapping[str, str | None], seen: set[str]
) -> Iterator[Record]:
    """Rows of an img2dataset Parquet whose pictures are not in the tar beside it.

    Args:
        columns: "url" and "text" -> their names.
        seen: keys that the tar holds.
    """
    with open_parquet(store, path) as parquet:
        for batch in parquet.iter_batches(10_000):
            for row in batch.to_pylist():
                key = str(row.get("key"))
                if key in seen:
                    continue
                lost = not_downloaded(row) or Failure(
                    Reason.NO_PICTURE, "not in the tar beside its Parquet"
                )
                url = row.get(columns["url"] or "")
                dropped = (columns["url"], columns["text"])
                try:
                    texts = texts_of(row.get(columns["text"] or ""), columns["text"])
                except NoTextError:  # the row has failed for a better reason
                    texts = []
                yield Record(
                    url=url,
                    **texts_given(texts),
                    fields={n: v for n, v in row.items() if n not in dropped},
                    identity=None if url else local_identity(path, key),
                    failure=lost,
                    file=path,
                    key=key,
                )


def _is_companion(schema: pa.Schema) -> bool:
    """Whether a Parquet beside a tar is img2dataset's record of it."""
    return {"key", "status"} <= set(schema.names)
