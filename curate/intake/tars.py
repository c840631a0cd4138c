"""WebDataset tars as they exist: members of one base name are one sample.

The base name ends at its first dot, as WebDataset has it; but where that would put pictures of
names such as `shop.example_1.jpg` and `shop.example_2.jpg` into one sample, it ends at the last
dot (see `_Group`). The picture is the first member with an image extension that is read; masks and
further views of it are left out, and counted by name. The texts are the `.txt` (or `.caption`)
members, and the texts of the `.json` member's text column where there are none or where that holds
a list; the URL is the `.json` member's. The other fields of the `.json` are the row's further
columns. Only headers, texts and JSON are read here; pictures are found again by their offset.
img2dataset writes a Parquet beside each tar: the rows that it could not fetch stand only there, and
come in as failed rows with its words.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

from curate.base.reasons import Failure, Reason, printable
from curate.intake.columns import TEXT_COLUMNS, URL_COLUMNS
from curate.intake.left_out import LeftOut, Why
from curate.intake.locations import Store
from curate.intake.rows import Record, broken, local_identity, text_problem, texts_given
from curate.intake.tar_headers import BoundedTarInfo
from curate.intake.text_form import is_gzip
from curate.intake.texts import NoTextError, find_name, several, texts_of, value_at

EXTENSIONS = (".tar", ".tar.gz", ".tgz")
_READ = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "tif", "tiff", "avif"}
)
# Pictures whose format is not read are rows as well, and fail with that reason.
IMAGE_EXTENSIONS = _READ | frozenset(
    {"heic", "heif", "hif", "jxl", "svg", "svgz", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "jxr"}
    | {"ico", "cur", "icns", "psd", "psb", "xcf", "exr", "hdr", "tga", "pcx", "dds", "qoi", "bpg"}
    | {"ppm", "pgm", "pbm", "pnm", "pam", "pfm", "wdp", "hdp", "flif", "mng", "jng", "eps"}
    | {"dng", "cr2", "cr3", "nef", "arw", "orf", "raf", "rw2", "srw", "pef", "dcm", "fits"}
)
_TEXTS = ("txt", "caption", "cap", "text")
_TAKEN = IMAGE_EXTENSIONS | {"json", *_TEXTS}
_LARGEST_TEXT = 1 << 20  # bytes of a text or JSON member that are read
_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
_BLOCK = 512

Names = Callable[[Mapping[str, Any]], tuple[str | None, str | None]]
"""URL and text column of a sidecar's fields."""


def sidecar_names(url: str | None = None, text: str | None = None) -> Names:
    """Find the URL and the text of a sidecar: by these names, else by the usual ones."""

    def names(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
        return (
            find_name(fields, (url.lower(),) if url else URL_COLUMNS),
            find_name(fields, (text.lower(),) if text else TEXT_COLUMNS),
        )

    return names


def read_tar(
    store: Store, path: str, names: Names, left_out: LeftOut | None = None
) -> Iterator[Record]:
    """Every sample of one tar, in its order; what is damaged ends it with a last broken row.

    Args:
        left_out: takes the members that become no row and no part of one.
    """
    try:
        with ExitStack() as stack:
            stream = stack.enter_context(open_tar(store, path))
            yield from _samples(stream, path, names, left_out or LeftOut())
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        yield _damage(path, error)


def open_tar(store: Store, path: str) -> IO[bytes]:
    """The tar's bytes, unpacked; seeking forward in a packed one reads all that it passes."""
    if not is_gzip(store, path):
        return store.open(path)
    return gzip.GzipFile(fileobj=store.open(path))  # type: ignore[return-value]


def _samples(stream: IO[bytes], path: str, names: Names, left_out: LeftOut) -> Iterator[Record]:
    group: _Group | None = None
    seen: set[str] = set()
    end: int | None = None
    last: tarfile.TarInfo | None = None

    def rows() -> Iterator[Record]:
        for sample in group.samples() if group is not None else ():
            for why, name in sample.left_out():
                left_out.note(why, f"{path}#{name}")
            yield sample.record(path, names, seen)

    try:
        with tarfile.open(fileobj=stream, mode="r:", tarinfo=BoundedTarInfo) as tar:
            for member in tar:
                # A TarFile remembers every member that it passed; a shard has tens of thousands.
                tar.members = []  # type: ignore[attr-defined]
                last = member
                match = _NAME.fullmatch(member.name)
                why = _why_left_out(member, match)
                if why is not None:
                    left_out.note(why, f"{path}#{member.name}")
                if match is None or why is not None or not member.isfile():
                    continue
                key, extension = match[1], match[2].lower()
                # A member that comes twice belongs to a second sample of the same name.
                if group is None or group.key != key or extension in group.members:
                    yield from rows()
                    group = _Group(key)
                group.take(tar, member, match[2])
            end = tar.offset
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        yield from rows()
        if not (isinstance(error, tarfile.ReadError) and _says_itself(stream, last)):
            yield _damage(path, error)
        return
    yield from rows()
    yield from _behind(stream, path, end or 0)


def _says_itself(stream: IO[bytes], last: tarfile.TarInfo | None) -> bool:
    """Whether the tar ends so soon in its last member, a picture, that only that one is lost."""
    if last is None or last.name.rpartition(".")[2].lower() not in IMAGE_EXTENSIONS:
        return False
    stream.seek(last.offset_data)
    return len(stream.read(_BLOCK)) < min(_BLOCK, last.size)


def _why_left_out(member: tarfile.TarInfo, match: re.Match[str] | None) -> Why | None:
    """Why a member is no part of any sample; None also for folders and devices."""
    if member.islnk() or member.issym():
        return Why.LINK
    if not member.isfile():
        return None
    if _hidden(member.name):
        return Why.HIDDEN
    return Why.OTHER_FILE if match is None else None


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
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return any(part.startswith((".", "__MACOSX")) for part in parts)


@dataclass(frozen=True)
class _Member:
    """A picture's place, or the content of a text."""

    name: str  # as it stands in the tar
    extension: str  # behind the last dot, in lower case
    offset: int
    size: int
    content: bytes | None = None


class _Group:
    """Neighbouring members whose names are the same up to the first dot.

    They are one sample (000.jpg, 000.seg.png, 000.json; also 000.image.png, 000.caption.txt) unless
    their names say otherwise: where several pictures have texts of their own, or where no text and
    no picture has the bare name, each name up to its last dot is a sample (shop.a.jpg, shop.b.jpg).
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.members: dict[str, _Member] = {}  # by all that stands behind the first dot

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo, behind: str) -> None:
        """Note where a picture lies, read a text."""
        extension = behind.rpartition(".")[2].lower()
        content = None
        if extension not in IMAGE_EXTENSIONS:
            opened = tar.extractfile(member) if extension in _TAKEN else None
            content = opened.read(_LARGEST_TEXT + 1) if opened else b""
        self.members[behind.lower()] = _Member(
            member.name, extension, member.offset_data, member.size, content
        )

    def samples(self) -> list[_Sample]:
        """The samples, in the order of their first members."""
        by_stem: dict[str, list[_Member]] = {}
        for behind, member in self.members.items():
            by_stem.setdefault(behind.rpartition(".")[0], []).append(member)
        pictured = {stem for stem, found in by_stem.items() if any(_is_picture(m) for m in found)}
        texts = {stem for stem, found in by_stem.items() if any(not _is_picture(m) for m in found)}
        told = pictured & texts
        apart = len(pictured) > 1 and (
            (len(told) > 1 and texts <= pictured) or ("" not in by_stem and (told or not texts))
        )
        if not apart:
            return [_Sample(self.key, list(self.members.values()))]
        return [_Sample(_own_key(found[0].name), found) for found in by_stem.values()]


def _is_picture(member: _Member) -> bool:
    return member.content is None


def _own_key(name: str) -> str:
    return name.rpartition(".")[0]


class _Sample:
    """The members that are one row."""

    def __init__(self, key: str, members: Sequence[_Member]) -> None:
        self.key = key
        self.pictures = [member for member in members if _is_picture(member)]
        read = (member for member in self.pictures if member.extension in _READ)
        self.picture = next(read, self.pictures[0] if self.pictures else None)
        self.others = [member.name for member in members if member.extension not in _TAKEN]
        self.texts: dict[str, bytes] = {}
        for member in members:
            if member.content is not None:
                self.texts.setdefault(member.extension, member.content)

    def left_out(self) -> list[tuple[Why, str]]:
        """Beside the row's picture: further ones, and members that are neither picture nor text."""
        if self.picture is None:  # the row says so
            return []
        further = [(Why.FURTHER, m.name) for m in self.pictures if m is not self.picture]
        return further + [(Why.OTHER_FILE, name) for name in self.others]

    def record(self, path: str, names: Names, seen: set[str]) -> Record:
        """The sample as a row. A key that came before in this tar is told apart by its place."""
        fields, problem = parse_sidecar(self.texts.get("json"))
        beside = []
        for extension in _TEXTS:
            if extension in self.texts:
                text, text_problem_ = decode_text(self.texts[extension])
                problem = problem or text_problem_
                beside += [] if text is None else [text]
        offset, size = (self.picture.offset, self.picture.size) if self.picture else (None, None)
        place = self.key if self.key not in seen else f"{self.key}@{offset}"
        seen.add(self.key)
        told = sidecar_row(self.key, fields, beside, problem, names)
        failure = told.pop("failure")
        if failure is None and self.picture is None:
            failure = not_downloaded(fields) or Failure(Reason.NO_PICTURE, printable(self.key))
        return Record(
            **told,
            identity=None if told["url"] else local_identity(path, place),
            failure=failure,
            file=path,
            key=self.key,
            offset=offset,
            size=size,
        )


def sidecar_row(
    place: str,
    fields: Mapping[str, Any],
    beside: Sequence[str],
    problem: str | None,
    names: Names,
) -> dict[str, Any]:
    """url, text, texts, fields, no_text and failure of a record, from what lies beside a picture.

    Args:
        place: the sample's name, for the failure.
        fields: of its JSON and metadata.
        beside: the texts of its text files. They come first; of the fields a list of texts is added
            to them, a single text is only taken where there is no text file, and stays a field
            where it says something else.
        problem: what is wrong already.
    """
    beside = list(beside)
    url_name, text_name = names(fields)
    url = as_text(value_at(fields, url_name)) or None
    told, no_text = value_at(fields, text_name), None
    if beside == [""] and text_name is not None and told in (None, []):
        beside = []  # a writer that puts a .txt beside every picture says so in its JSON
    dropped = {url_name, text_name}
    try:
        texts = texts_of(told, text_name)
        if beside and not isinstance(told, list):
            dropped -= {text_name} if texts and texts[0] not in beside else set()
            texts = []
        if beside:
            texts = several([*beside, *texts]) or beside[:1]
    except NoTextError as error:
        texts, no_text, problem = beside, error, problem or str(error)
    failure: Failure | None = None
    problem = problem or text_problem(url, *texts)
    if problem is not None:
        failure = Failure(Reason.UNREADABLE_ROW, printable(f"{place}: {problem}")[:300])
        url = url if text_problem(url) is None else None
        texts = texts if text_problem(*texts) is None else []
    return {
        "url": url,
        **texts_given(texts),
        "fields": {name: value for name, value in fields.items() if name not in dropped},
        "no_text": no_text,
        "failure": failure,
    }


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
    """The fields of a JSON sidecar, and what is wrong with it. A list is texts, or no field."""
    if content is None:
        return {}, None
    if len(content) > _LARGEST_TEXT:
        return {}, f"the JSON has more than {_LARGEST_TEXT:,} bytes"
    try:
        fields = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return {}, f"the JSON cannot be read ({error})"
    alone = isinstance(fields, list) and all(isinstance(text, str) for text in fields)
    if isinstance(fields, str) or alone:
        return {"text": fields}, None
    return (fields, None) if isinstance(fields, dict) else ({"json": fields}, None)


def not_downloaded(fields: Mapping[str, Any]) -> Failure | None:
    """The failure that img2dataset noted in its `status` and `error_message`, if it did."""
    status = fields.get("status")
    if not isinstance(status, str) or not status.startswith("failed"):
        return None
    said = f"{status}: {fields.get('error_message') or ''}".removesuffix(": ")
    return Failure(Reason.NOT_DOWNLOADED, printable(said)[:300])
