"""WebDataset tars as they exist: members of one base name are one sample.

The picture is the first member with an image extension (masks and further views of it are left
out); the text is the `.txt` (or `.caption`)
member, else the `.json` member's text column; the URL is the `.json` member's. The other fields
of the `.json` are the row's further columns. Only headers, texts and JSON are read here; pictures
are found again by their offset. img2dataset writes a Parquet beside each tar: the rows that it
could not fetch stand only there, and come in as failed rows with its words.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import IO, Any

from curate.intake.columns import TEXT_COLUMNS, URL_COLUMNS, find_column
from curate.intake.lines import is_gzip
from curate.intake.locations import Store
from curate.intake.rows import Record, broken, local_identity, text_problem
from curate.intake.tar_headers import BoundedTarInfo
from curate.reasons import Failure, Reason, printable

EXTENSIONS = (".tar", ".tar.gz", ".tgz")
IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp"}
    | {"tif", "tiff", "avif", "heic", "heif", "ppm", "pgm"}
)
_TEXTS = ("txt", "caption", "cap", "text")
_LARGEST_TEXT = 1 << 20  # bytes of a text or JSON member that are read
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
_BLOCK = 512

Names = Callable[[Mapping[str, Any]], tuple[str | None, str | None]]
"""URL and text column of a sidecar's fields."""


def sidecar_names(url: str | None = None, text: str | None = None) -> Names:
    """Find the URL and the text of a sidecar: by these names, else by the usual ones."""

    def names(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
        return (
            find_column(fields, (url.lower(),) if url else URL_COLUMNS),
            find_column(fields, (text.lower(),) if text else TEXT_COLUMNS),
        )

    return names


def read_tar(store: Store, path: str, names: Names) -> Iterator[Record]:
    """Every sample of one tar, in its order; what is damaged ends it with a last broken row."""
    try:
        with ExitStack() as stack:
            stream = stack.enter_context(open_tar(store, path))
            yield from _samples(stream, path, names)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        yield _damage(path, error)


def open_tar(store: Store, path: str) -> IO[bytes]:
    """The tar's bytes, unpacked; seeking forward in a packed one reads all that it passes."""
    if not is_gzip(store, path):
        return store.open(path)
    return gzip.GzipFile(fileobj=store.open(path))  # type: ignore[return-value]


def _samples(stream: IO[bytes], path: str, names: Names) -> Iterator[Record]:
    sample: _Sample | None = None
    seen: set[str] = set()
    end: int | None = None
    last: tarfile.TarInfo | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=BoundedTarInfo) as tar:
            for member in tar:
                # A TarFile remembers every member that it passed; a shard has tens of thousands.
                tar.members = []  # type: ignore[attr-defined]
                last = member
                match = _NAME.fullmatch(member.name)
                if not member.isfile() or match is None or _hidden(member.name):
                    continue
                key, extension = match[1], match[2].lower()
                # A member that comes twice belongs to a second sample of the same name.
                if sample is None or sample.key != key or extension in sample.extensions:
                    if sample is not None:
                        yield sample.record(path, names, seen)
                    sample = _Sample(key)
                sample.take(tar, member, extension)
            end = tar.offset
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        if sample is not None:
            yield sample.record(path, names, seen)
        if not (isinstance(error, tarfile.ReadError) and _says_itself(stream, last)):
            yield _damage(path, error)
        return
    if sample is not None:
        yield sample.record(path, names, seen)
    yield from _behind(stream, path, end or 0)


def _says_itself(stream: IO[bytes], last: tarfile.TarInfo | None) -> bool:
    """Whether the tar ends so soon in its last member, a picture, that only that one is lost."""
    if last is None or last.name.rpartition(".")[2].lower() not in IMAGE_EXTENSIONS:
        return False
    stream.seek(last.offset_data)
    return len(stream.read(_BLOCK)) < min(_BLOCK, last.size)


def _behind(stream: IO[bytes], path: str, end: int) -> Iterator[Record]:
    """A broken row if there is no end mark where the reader stopped: tarfile says nothing then."""
    stream.seek(max(0, end - _BLOCK))
    before = stream.read(_BLOCK)
    block = stream.read(_BLOCK)
    if not block.strip(b"\0") and (block or not before.strip(b"\0")):
        return
    why = "no valid header" if block else "the tar ends without its end mark"
    yield _damage(path, f"{why} at byte {end}")


def _damage(path: str, error: object) -> Record:
    said = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
    shown = printable(f"{path}: {said}")[:300]
    return broken(path, "damage", Failure(Reason.DAMAGED_SOURCE, shown))


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/") if part != ".")


class _Sample:
    """The members of one base name."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.extensions: set[str] = set()
        self.picture: tuple[int, int] | None = None
        self.texts: dict[str, bytes] = {}
        self.fields: dict[str, Any] = {}
        self.problem: str | None = None

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, extension: str) -> None:
        """Note where a picture lies, read a text."""
        self.extensions.add(extension)
        extension = extension.rpartition(".")[2]
        if extension in IMAGE_EXTENSIONS:
            self.picture = self.picture or (member.offset_data, member.size)
        elif extension in _TEXTS or extension == "json":
            content = tar.extractfile(member)
            self.texts.setdefault(extension, content.read(_LARGEST_TEXT + 1) if content else b"")

    def record(self, path: str, names: Names, seen: set[str]) -> Record:
        """The sample as a row. A key that came before in this tar is told apart by its place."""
        fields, problem = parse_sidecar(self.texts.get("json"))
        url_name, text_name = names(fields)
        url, text = as_text(fields.get(url_name or "")), as_text(fields.get(text_name or ""))
        for extension in _TEXTS:
            if extension in self.texts:
                text, text_problem_ = decode_text(self.texts[extension])
                problem = problem or text_problem_
                break
        if text == "" and text_name is not None and fields[text_name] is None:
            text = None  # a writer that puts a .txt beside every picture says so in its JSON
        fields = {n: v for n, v in fields.items() if n != url_name and n != text_name}
        offset, size = self.picture or (None, None)
        place = self.key if self.key not in seen else f"{self.key}@{offset}"
        seen.add(self.key)
        failure = None
        problem = problem or text_problem(url, text)
        if problem is not None:
            failure = Failure(Reason.UNREADABLE_ROW, printable(f"{self.key}: {problem}")[:300])
            url = url if text_problem(url) is None else None
            text = text if text_problem(text) is None else None
        elif self.picture is None:
            failure = not_downloaded(fields) or Failure(Reason.NO_PICTURE, printable(self.key))
        return Record(
            url=url or None,
            text=text,
            fields=fields,
            identity=None if url else local_identity(path, place),
            failure=failure,
            file=path,
            key=self.key,
            offset=offset,
            size=size,
        )


def as_text(value: Any) -> str | None:
    """A URL or text of a sidecar as text; numbers as they are written."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def decode_text(content: bytes) -> tuple[str | None, str | None]:
    """The text of a file, letter for letter, and what is wrong with it."""
    if len(content) > _LARGEST_TEXT:
        return None, f"the text has more than {_LARGEST_TEXT:,} bytes"
    try:
        return content.decode("utf-8"), None
    except UnicodeDecodeError as error:
        return None, f"the text is no UTF-8 ({error.reason} at byte {error.start})"


def parse_sidecar(content: bytes | None) -> tuple[dict[str, Any], str | None]:
    """The fields of a JSON sidecar, and what is wrong with it. A list holds no fields."""
    if content is None:
        return {}, None
    if len(content) > _LARGEST_TEXT:
        return {}, f"the JSON has more than {_LARGEST_TEXT:,} bytes"
    try:
        fields = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return {}, f"the JSON cannot be read ({error})"
    if isinstance(fields, str):
        return {"text": fields}, None
    return (fields, None) if isinstance(fields, dict) else ({"json": fields}, None)


def not_downloaded(fields: Mapping[str, Any]) -> Failure | None:
    """The failure that img2dataset noted in its `status` and `error_message`, if it did."""
    status = fields.get("status")
    if not isinstance(status, str) or not status.startswith("failed"):
        return None
    said = f"{status}: {fields.get('error_message') or ''}".removesuffix(": ")
    return Failure(Reason.NOT_DOWNLOADED, printable(said)[:300])
