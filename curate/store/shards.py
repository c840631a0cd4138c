"""Shards: WebDataset tars in img2dataset's layout, KEY.jpg (png, webp), KEY.txt, KEY.json."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.base.column_marks import note, noted
from curate.base.errors import DatasetError
from curate.base.files import atomic_path
from curate.store.dataset import Dataset

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp"})

_TAR_NOTE = b"caplab_tar"
_BUFFER = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_MOST_BYTES = 8**11 - 1
# Behind the checksum: a file, no link, version "00", then no owner's names, device and prefix.
_REST = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)
# A checksum counts itself as eight spaces; the time before it is eleven zeros.
_SUM_OF_THE_REST = sum(_REST) + 8 * 0x20 + 11 * ord("0")


def write_shard(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> dict[bytes, bytes]:
    """Write (key, extension -> bytes) samples as a tar, atomically and in the order given.

    Times, owners and modes are fixed, so the same samples give the same bytes.

    Returns:
        Size and sha256 of the tar, as a note for the metadata of its samples table (`tar_note`).
    """
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, open(temporary, "wb", _BUFFER) as tar:

        def write(content: bytes) -> None:
            tar.write(content)
            digest.update(content)

        for key, members in samples:
            for extension, content in members.items():
                write(_header(f"{key}.{extension}", len(content)))
                write(content)
                write(bytes(-len(content) % _BLOCK))
        # Two empty blocks end a tar, which is filled up to whole records.
        write(bytes(2 * _BLOCK))
        write(bytes(-tar.tell() % tarfile.RECORDSIZE))
        size = tar.tell()
    return note({"bytes": size, "sha256": digest.hexdigest()}, _TAR_NOTE)


def tar_note(samples: Path) -> dict[str, Any]:
    """Size ("bytes") and "sha256" of the tar that was written with a samples table.

    Empty where the table has no such note. Reads the footer alone.
    """
    return noted(pq.read_schema(samples), _TAR_NOTE)


def _header(name: str, size: int) -> bytes:
    """The 512 bytes before a member (POSIX.1-1988, ustar), as tarfile writes them, but quicker."""
    encoded = name.encode()
    if len(encoded) > 100 or size > _MOST_BYTES:
        member = tarfile.TarInfo(name)
        member.size = size
        return member.tobuf(tarfile.USTAR_FORMAT)
    start = encoded.ljust(100, b"\0") + b"0000644\0" + 2 * b"0000000\0" + b"%011o\0" % size
    sums = sum(start) + _SUM_OF_THE_REST
    return start + b"00000000000\0" + b"%06o\0 " % sums + _REST


def iter_shard(
    dataset: Dataset, shard: str, keys: Container[str] | None = None
) -> Iterator[tuple[str, bytes, str]]:
    """The stored samples of a shard in input order: (key, encoded image, alt text).

    The alt text is "" where the input had none (`samples.alt_text` tells the two apart). Reads
    the tar once from front to back; memory is one sample.

    Args:
        keys: of the samples that are wanted, the others are stepped over; None wants all.

    Raises:
        DatasetError: the shard is missing or is no tar, or a sample lacks its picture.
    """
    path = dataset.shard_path(shard)
    try:
        with tarfile.open(path, "r:") as tar:
            for key, members in _grouped(tar, keys):
                image = next((members[e] for e in members if e in IMAGE_EXTENSIONS), None)
                if image is None:
                    raise DatasetError(f"Sample {key} of {path} has no picture.")
                yield key, image, members.get("txt", b"").decode("utf-8")
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is missing; `caplab check {dataset.directory} --repair` fetches it again."
        ) from error
    except tarfile.TarError as error:
        raise DatasetError(
            f"{path} is unreadable ({error}); `caplab check {dataset.directory} --repair` fetches "
            f"it again."
        ) from error


def iter_members(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, extension -> bytes) of a finished tar, as `write_shard` takes them."""
    with tarfile.open(path, "r:") as tar:
        yield from _grouped(tar)


def member_places(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and size of every file in a tar; reads 512 bytes a member.

    Plain headers, which is what shards have, are read by hand, ten times as fast as by tarfile;
    any other kind leaves the whole tar to tarfile.

    Raises:
        OSError, tarfile.TarError, ValueError: it is missing or no tar.
    """
    plain = []
    with open(path, "rb", 0) as tar:
        place = 0
        while len(header := os.pread(tar.fileno(), _BLOCK, place)) == _BLOCK and header[0]:
            if header[156:157] not in (b"0", b"\0") or header[345] or header[124] & 0x80:
                with tarfile.open(path, "r:") as odd:
                    yield from ((m.name, m.offset_data, m.size) for m in odd if m.isfile())
                return
            size = int(header[124:136].strip(b" \0") or b"0", 8)
            name = header[:100].split(b"\0", 1)[0].decode("utf-8", "replace")
            plain.append((name, place + _BLOCK, size))
            place += _BLOCK - (-size // _BLOCK) * _BLOCK
    yield from plain


def _grouped(
    tar: tarfile.TarFile, keys: Container[str] | None = None
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Neighbouring members of one key, together; of `keys` alone where they are given."""
    current: str | None = None
    members: dict[str, bytes] = {}
    for member in tar:
        # A TarFile remembers every member that it passed; a shard has tens of thousands.
        tar.members = []  # type: ignore[attr-defined]
        key, _, extension = member.name.partition(".")
        if keys is not None and key not in keys:
            continue
        if current is not None and key != current:
            yield current, members
            members = {}
        current = key
        content = tar.extractfile(member)
        if content is not None:
            members[extension] = content.read()
    if current is not None:
        yield current, members
