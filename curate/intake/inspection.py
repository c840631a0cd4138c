"""Finds out what an input is, cheaply: its files, its format, its columns; or why it is none.

`inspect_input` looks at names, footers and the first rows; a billion rows cost it no more than a
thousand, but for the footers of Parquet files.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.reasons import Failure, Reason
from curate.intake.columns import (
    FILE_COLUMNS,
    TEXT_COLUMNS,
    URL_COLUMNS,
    choose_column,
    find_column,
    score_columns,
)
from curate.intake.folders import is_picture
from curate.intake.locations import Found, Store, locate
from curate.intake.parquet_lists import (
    ParquetColumns,
    image_column,
    inner_names,
    no_text_in,
    row_count,
    shared_schema,
)
from curate.intake.rows import text_problem
from curate.intake.settings import InputFormat
from curate.intake.source import SHOWN, TYPED_ROWS, Source, text_kind
from curate.intake.tars import EXTENSIONS
from curate.intake.text_form import (
    check_encoding,
    refuse_other_encodings,
    refuse_other_shapes,
)
from curate.intake.text_lists import TEXT_URL, TextKind, read_text_list
from curate.intake.texts import names_inside, with_spelled

_KINDS: dict[str, InputFormat] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "text",
}
_KNOWN = (
    ".parquet, .csv, .tsv, .jsonl, .json or .txt (the last five also with .gz), .tar or .tar.gz, "
    "or be a folder of pictures"
)
_LOOKED_AT = 10_000  # files of a folder from which its format is taken
_Named = InputFormat | Literal["picture"] | None
_FILES_LOOKED_AT = 100  # files whose encoding is looked at


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
    asked = _Asked(
        str(given), url_column, text_column, tuple(import_columns), without_texts, encoding
    )
    try:
        return _looked_at(locate(asked.given), asked, input_format)
    except OSError as error:
        raise ConfigError(f"The input {given} cannot be read ({error}).") from error


@dataclass(frozen=True)
class _Asked:
    """The arguments of `inspect_input`, but for the format."""

    given: str
    url: str | None
    text: str | None
    imports: tuple[str, ...]
    without_texts: bool
    encoding: str | None

    def url_of(self, names: Iterable[str], where: str) -> str:
        return choose_column(names, self.url, URL_COLUMNS, "URL", "--url-column", where)

    def text_of(self, names: Iterable[str], where: str) -> str:
        option = "--text-column, or say --without-texts"
        return choose_column(names, self.text, TEXT_COLUMNS, "text", option, where)


def _looked_at(found: Found, asked: _Asked, input_format: InputFormat | None) -> Source:
    given, encoding = asked.given, asked.encoding
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
        return replace(_parquet_source(store, files, asked), whole=found.files is None)
    local, url, text = kind in ("webdataset", "folder"), asked.url, asked.text
    if not local:
        _refuse_empty(store, files)
        if encoding is None:
            for path in files[:_FILES_LOOKED_AT]:
                refuse_other_encodings(store, path)
        url, text = _list_columns(store, files, text_kind(kind), asked)
    source = Source(
        given, kind, store, files, url, text, None, {}, {}, local, asked.imports, encoding
    )  # fmt: skip
    records = source.records()
    first = list(itertools.islice(records, TYPED_ROWS))
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
    missing = {name for name in asked.imports if name not in columns}
    further = iter(()) if kind in ("csv", "tsv") else records
    while missing and (record := next(further, None)) is not None:
        late = missing.intersection(record.fields)
        columns |= dict.fromkeys(sorted(late), "string")
        missing -= late
    return replace(
        source,
        columns=columns,
        imported=score_columns(columns, asked.imports),
        all_seen=next(records, None) is None,
        whole=found.files is None,
    )


def _parquet_source(store: Store, files: tuple[str, ...], asked: _Asked) -> Source:
    _refuse_empty(store, files)
    schema = shared_schema(store, list(files))
    where = store.show(files[0])
    image = image_column(schema)
    names = [name for name in schema.names if name != image]
    names += [name for name in inner_names(schema) if name.partition(".")[0] != image]
    # Pictures may come without a URL or a text.
    url, text = find_column(names, URL_COLUMNS), find_column(names, TEXT_COLUMNS)
    if image is None or asked.url:
        url = asked.url_of(names, where)
    if image is None and asked.without_texts:
        text = None
    elif image is None or asked.text:
        text = asked.text_of(names, where)
    if url is not None and url == text:
        raise ConfigError(f"The URL and the text cannot both be the column {url!r}.")
    if url in schema.names and pa.types.is_nested(schema.field(url).type):
        kind = schema.field(url).type
        raise ConfigError(
            f"{where}: the column {url!r} holds {kind}, not one URL a row; name another with "
            f"--url-column, or unpack it first."
        )
    if not row_count(store, list(files)):
        raise ConfigError(f"{asked.given} has no rows; give a list with at least one URL.")
    problem = no_text_in(schema, text)
    if problem is not None:
        raise ConfigError(f"{where} cannot be read: {problem}.")
    parquet = ParquetColumns(schema, url, text, image)
    extras = {f.name: str(f.type) for f in parquet.extras()}
    return Source(
        asked.given, "parquet", store, files, url, text, image, extras,
        score_columns(extras, asked.imports), image is not None, asked.imports,
        parquet=parquet,
    )  # fmt: skip


def _refuse_empty(store: Store, files: Sequence[str]) -> None:
    for path in files:
        if store.state(path)[0] == 0:
            raise ConfigError(f"{store.show(path)} is empty; give a list with at least one URL.")


def _list_columns(
    store: Store, files: Sequence[str], kind: TextKind, asked: _Asked
) -> tuple[str, str | None]:
    """The URL and the text column, from the first rows that can be read."""
    if kind == "text":
        return TEXT_URL, None
    names: dict[str, None] = {}
    why = ""
    for path in files:
        rows = read_text_list(store, path, kind, asked.encoding, asked.url)
        for _, found in itertools.islice(rows, TYPED_ROWS):
            if isinstance(found, Failure):
                why = why or f": {found.detail}"
            else:
                if kind in ("json", "jsonl") and not names:
                    refuse_other_shapes(found, asked.url, store.show(path))
                names.update(dict.fromkeys(found))
                if asked.text is not None and kind in ("csv", "tsv"):
                    found = with_spelled(found, asked.text)
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
            f"{where} has no rows that can be read as {SHOWN[kind]}{why}; give {wanted}."
        )
    if asked.url is None and find_column(names, URL_COLUMNS) is None:
        file = find_column(names, FILE_COLUMNS)
        if file is not None:
            raise ConfigError(
                f"{where} has no URL column; its columns are {', '.join(names)}. Name one with "
                f"--url-column; for pictures that {file!r} names, give the folder they lie in, "
                f"with this file in it as metadata.jsonl."
            )
    url = asked.url_of(names, where)
    text = None if asked.without_texts else asked.text_of(names, where)
    if url == text:
        raise ConfigError(f"The URL and the text cannot both be the column {url!r}.")
    return url, text


def recognise(
    found: Found, given: str, forced: InputFormat | None
) -> tuple[InputFormat, tuple[str, ...]]:
    """The format, and the files that are read (none for a folder of pictures)."""
    if found.files is not None:
        kinds: dict[_Named, str] = {kind_of(path): path for path in found.files}
        if forced is not None and forced != "folder":
            return forced, found.files
        if forced == "folder" or "picture" in kinds:
            raise ConfigError(f"{given} names pictures one by one; give the folder they are in.")
        return _single(kinds, found.store), found.files
    if forced == "folder":
        return "folder", ()
    paths = list(itertools.islice(found.store.walk(), _LOOKED_AT))
    kinds = {}
    for path in paths:
        kinds.setdefault(kind_of(path), path)
    if forced is None:
        if "webdataset" in kinds:
            forced = "webdataset"
        elif "picture" in kinds:
            return "folder", ()
        else:
            lists: dict[_Named, str] = {k: p for k, p in kinds.items() if k is not None}
            if not lists:
                raise ConfigError(
                    f"The folder {given} holds no list, no tar and no picture; an input must "
                    f"end in {_KNOWN}."
                )
            forced = _single(lists, found.store)
    files = tuple(path for path in found.store.walk() if kind_of(path) == forced)
    if not files:
        raise ConfigError(f"The folder {given} holds no file of the format {forced}.")
    return forced, files


def _single(kinds: dict[_Named, str], store: Store) -> InputFormat:
    if None in kinds:
        raise ConfigError(f"The input {store.show(kinds[None])} must end in {_KNOWN}.")
    if len(kinds) > 1:
        names = " and ".join(store.show(path) for path in sorted(kinds.values())[:2])
        raise ConfigError(f"The input mixes kinds of files ({names}); give one kind.")
    kind = next(iter(kinds))
    if kind is None or kind == "picture":
        raise ConfigError(f"The input must end in {_KNOWN}.")
    return kind


def kind_of(path: str) -> _Named:
    """The format that a file's name says; None for a name that says none."""
    name = os.path.basename(path).lower()
    if name.endswith(EXTENSIONS):
        return "webdataset"
    if is_picture(name):
        return "picture"
    bare = name.removesuffix(".gz")
    kind = _KINDS.get(os.path.splitext(bare)[1])
    # img2dataset's counts of a shard are no list.
    if name.endswith("_stats.json") or (kind == "parquet" and bare != name):
        return None
    return kind
