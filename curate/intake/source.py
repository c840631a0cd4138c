"""Finds out what an input is, cheaply, and streams its rows.

`inspect_input` looks at names, footers and the first rows; a billion rows cost it no more than a
thousand, but for the footers of Parquet files. `Source.batches` then reads the input once from
front to back. What is wrong with the input as a whole is a ConfigError of the inspection; what is
wrong with a row is that row's failure.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.reasons import Failure, Reason, printable
from curate.intake.column_types import ColumnTypes
from curate.intake.columns import (
    FILE_COLUMNS,
    TEXT_COLUMNS,
    URL_COLUMNS,
    choose_column,
    find_column,
    hash_name,
    is_score,
    score_columns,
)
from curate.intake.folders import is_hidden, is_picture, read_folder
from curate.intake.formats import InputFormat, recognise
from curate.intake.left_out import LeftOut, Why
from curate.intake.lines import is_gzip
from curate.intake.locations import Found, Store, locate
from curate.intake.parquet_lists import (
    ParquetColumns,
    image_column,
    inner_names,
    is_companion,
    no_text_in,
    open_parquet,
    parquet_batches,
    row_count,
    rows_of_companion,
    shared_schema,
    text_counts,
)
from curate.intake.rows import Record, broken, text_problem, texts_given
from curate.intake.tars import read_tar, sidecar_names
from curate.intake.text_form import check_encoding, refuse_other_encodings, refuse_other_shapes
from curate.intake.text_lists import TEXT_URL, TextKind, read_text_list
from curate.intake.texts import NoTextError, names_inside, texts_of, value_at, with_spelled

_TYPED_ROWS = 1000  # rows from which the columns of a text file or sidecar are taken
_FILES_LOOKED_AT = 100  # files whose encoding is looked at
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
        names = f" ({len(self.files):,} files: {fingerprint(self.files)})" if self.files else ""
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
                yield from rows_of_companion(self.store, *companion, seen)
            return
        kind = _text_kind(self.format)
        found = read_text_list(self.store, path, kind, self.encoding, self.url_column)
        yield from _list_records(found, path, kind, self.url_column, self.text_column)

    def count(self) -> tuple[int | None, bool]:
        """(rows, whether that is exact); None where it cannot be said without reading it all."""
        found = self.survey()
        return found.rows, found.exact

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
            self.format, f"a list in {_SHOWN.get(self.format, '')}"
        )
        if self.image_column:
            what = f"Parquet with pictures in the column {self.image_column!r}"
        files = f", {len(self.files):,} files" if len(self.files) > 1 else ""
        url, text = self.url_column or "none", self.text_column or "none"
        if self.format in ("webdataset", "folder"):
            url, text = self.url_column or "from JSON, if there", self.text_column or ".txt or JSON"
        lines = [f"input: {what} ({shown}{files})", f"  URL: {url}", f"  text: {text}"]
        others = [f"{name} ({kind})" for name, kind in self.columns.items()]
        seen = "" if self.all_seen else f" (by the first {_TYPED_ROWS:,} rows; all decide)"
        lines.append(f"  other columns, kept{seen}: {', '.join(others) or 'none'}")
        scores = [f"{name} as {own}" for name, own in self.imported.items()]
        lines.append(f"  imported as scores: {', '.join(scores) or 'none'}")
        hashes = [name for name in self.columns if hash_name(name)]
        if hashes and not self.local:
            lines.append(f"  hashes in the list: {', '.join(hashes)}")
        return "\n".join(lines)


_SHOWN = {
    "parquet": "Parquet",
    "csv": "CSV",
    "tsv": "TSV",
    "jsonl": "JSON lines",
    "json": "JSON",
    "text": "plain text, a URL a line",
}


def inspect_input(
    given: object,
    url_column: str | None = None,
    text_column: str | None = None,
    input_format: InputFormat | None = None,
    import_columns: Sequence[str] = (),
    without_texts: bool = False,
    encoding: str | None = None,
) -> Source:
    """Find the files, the format and the columns of an input; writes nothing.

    Args:
        given: a path, a folder, a glob or a URL such as s3://BUCKET/FOLDER; see
            curate.intake.locations.
        url_column, text_column: names; None recognises the usual ones, in any case.
        input_format: None recognises it by names and contents.
        import_columns: further columns to import as scores.
        without_texts: the list has no texts; otherwise a list without a text column is refused.
        encoding: of a list in text; None is UTF-8, or UTF-16 or -32 where a mark says so.

    Raises:
        ConfigError: nothing is there, the format is unknown or mixed, the contents are not what
            the name says, there are no rows, or a column is missing; one sentence.
    """
    try:
        return _looked_at(
            locate(str(given)),
            str(given),
            url_column,
            text_column,
            input_format,
            import_columns,
            without_texts,
            encoding,
        )
    except OSError as error:
        raise ConfigError(f"The input {given} cannot be read ({error}).") from error


def _looked_at(
    found: Found,
    given: str,
    url_column: str | None,
    text_column: str | None,
    input_format: InputFormat | None,
    import_columns: Sequence[str],
    without_texts: bool,
    encoding: str | None,
) -> Source:
    if encoding is not None:
        check_encoding(encoding)
    kind, files = recognise(found, given, input_format)
    store = found.store
    if encoding is not None and kind in ("parquet", "webdataset", "folder"):
        raise ConfigError(f"--encoding is for lists in text, and {given} is none ({kind}).")
    for path in files:
        if text_problem(path):
            raise ConfigError(f"The name of {path!a} is no UTF-8; rename the file.")
    if kind == "parquet":
        parquet = _parquet_source(
            given, store, files, url_column, text_column, import_columns, without_texts
        )
        return replace(parquet, whole=found.files is None)
    local, wanted = kind in ("webdataset", "folder"), tuple(import_columns)
    if local:
        source = Source(
            given, kind, store, files, url_column, text_column, None, {}, {}, True, wanted
        )  # fmt: skip
    else:
        _refuse_empty(store, files)
        if encoding is None:
            for path in files[:_FILES_LOOKED_AT]:
                refuse_other_encodings(store, path)
        url_column, text_column = _list_columns(
            store, files, _text_kind(kind), url_column, text_column, without_texts, encoding
        )
        source = Source(
            given, kind, store, files, url_column, text_column, None, {}, {}, False, wanted,
            encoding,
        )  # fmt: skip
    records = source.records()
    first = list(itertools.islice(records, _TYPED_ROWS))
    if not any(r.failure is None or r.failure.reason is not Reason.DAMAGED_SOURCE for r in first):
        why = next((f": {r.failure.detail}" for r in first if r.failure), "")
        hint = "at least one URL" if not local else "at least one picture"
        raise ConfigError(f"{given} has no rows{why}; give an input with {hint}.")
    refused = next((r.no_text for r in first if r.no_text is not None), None)
    if refused is not None and all(r.text is None for r in first):
        raise ConfigError(f"{given} cannot be read: {refused}.")
    types = source.column_types()
    columns = {name: str(kind) for name, kind in types.see(first).types().items()} if types else {}
    # A column that is asked for by name may come as late as in the last row.
    missing = {name for name in import_columns if name not in columns}
    further = iter(()) if kind in ("csv", "tsv") else records
    while missing and (record := next(further, None)) is not None:
        late = missing.intersection(record.fields)
        columns |= dict.fromkeys(sorted(late), "string")
        missing -= late
    imported = score_columns(columns, import_columns)
    return replace(
        source,
        columns=columns,
        imported=imported,
        all_seen=next(records, None) is None,
        whole=found.files is None,
    )


def _parquet_source(
    given: str,
    store: Store,
    files: tuple[str, ...],
    url_column: str | None,
    text_column: str | None,
    import_columns: Sequence[str],
    without_texts: bool,
) -> Source:
    _refuse_empty(store, files)
    schema = shared_schema(store, list(files))
    where = store.show(files[0])
    image = image_column(schema)
    names = [name for name in schema.names if name != image]
    names += [name for name in inner_names(schema) if name.partition(".")[0] != image]
    if image is None:
        url: str | None = _url_of(names, url_column, where)
        text: str | None = None if without_texts else _text_of(names, text_column, where)
    else:
        url = _url_of(names, url_column, where) if url_column else find_column(names, URL_COLUMNS)
        text = (
            _text_of(names, text_column, where) if text_column else find_column(names, TEXT_COLUMNS)
        )
    if url is not None and url == text:
        raise ConfigError(f"The URL and the text cannot both be the column {url!r}.")
    if url in schema.names and pa.types.is_nested(schema.field(url).type):
        kind = schema.field(url).type
        raise ConfigError(
            f"{where}: the column {url!r} holds {kind}, not one URL a row; name another with "
            f"--url-column, or unpack it first."
        )
    if not row_count(store, list(files)):
        raise ConfigError(f"{given} has no rows; give a list with at least one URL.")
    problem = no_text_in(schema, text)
    if problem is not None:
        raise ConfigError(f"{where} cannot be read: {problem}.")
    parquet = ParquetColumns(schema, url, text, image)
    extras = {f.name: str(f.type) for f in parquet.extras()}
    return Source(
        given, "parquet", store, files, url, text, image, extras,
        score_columns(extras, import_columns), image is not None, tuple(import_columns),
        parquet=parquet,
    )  # fmt: skip


def _text_kind(kind: InputFormat) -> TextKind:
    if kind in ("parquet", "webdataset", "folder"):
        raise ValueError(f"{kind} is no list in text")
    return kind  # type: ignore[return-value]


def _refuse_empty(store: Store, files: Sequence[str]) -> None:
    for path in files:
        if store.state(path)[0] == 0:
            raise ConfigError(f"{store.show(path)} is empty; give a list with at least one URL.")


# ---- lists in text ----------------------------------------------------------------------------


def _list_columns(
    store: Store,
    files: Sequence[str],
    kind: TextKind,
    url_column: str | None,
    text_column: str | None,
    without_texts: bool,
    encoding: str | None,
) -> tuple[str, str | None]:
    """The URL and the text column, from the first rows that can be read."""
    if kind == "text":
        return TEXT_URL, None
    names: dict[str, None] = {}
    why = ""
    for path in files:
        rows = read_text_list(store, path, kind, encoding, url_column)
        for _, found in itertools.islice(rows, _TYPED_ROWS):
            if isinstance(found, Failure):
                why = why or f": {found.detail}"
            else:
                if kind in ("json", "jsonl") and not names:
                    refuse_other_shapes(found, url_column, store.show(path))
                names.update(dict.fromkeys(found))
                if text_column is not None and kind in ("csv", "tsv"):
                    found = with_spelled(found, text_column)
                names.update(dict.fromkeys(names_inside(found)))
                if kind in ("csv", "tsv"):
                    break  # every row has the header's columns
        if names:
            break
    where = store.show(files[0])
    if not names:
        wanted = "a list with at least one URL"
        if kind in ("json", "jsonl"):
            wanted = "an array of objects, or an object a line, each with its URL"
        raise ConfigError(
            f"{where} has no rows that can be read as {_SHOWN[kind]}{why}; give {wanted}."
        )
    if url_column is None and find_column(names, URL_COLUMNS) is None:
        file = find_column(names, FILE_COLUMNS)
        if file is not None:
            raise ConfigError(
                f"{where} has no URL column; its columns are {', '.join(names)}. Name one with "
                f"--url-column; for pictures that {file!r} names, give the folder they lie in, "
                f"with this file in it as metadata.jsonl."
            )
    url = _url_of(names, url_column, where)
    text = None if without_texts else _text_of(names, text_column, where)
    if url == text:
        raise ConfigError(f"The URL and the text cannot both be the column {url!r}.")
    return url, text


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


def _url_of(names: Iterable[str], wanted: str | None, where: str) -> str:
    return choose_column(names, wanted, URL_COLUMNS, "URL", "--url-column", where)


def _text_of(names: Iterable[str], wanted: str | None, where: str) -> str:
    return choose_column(
        names, wanted, TEXT_COLUMNS, "text", "--text-column, or say --without-texts", where
    )


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
    if not is_companion(schema):
        return None
    columns = {
        "url": find_column(schema.names, URL_COLUMNS),
        "text": find_column(schema.names, TEXT_COLUMNS),
    }
    return beside, columns
