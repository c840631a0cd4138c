"""Tar headers that strangers wrote: bounded before tarfile believes them.

An extended header's size is what its author claims, and tarfile allocates it; its regular
expressions take minutes over a long row of digits (CVE-2024-6232, mended in Python 3.11.10), and a
negative size leads it in circles (CVE-2025-8194). Maps of sparse files may be as long as the tar.
"""

from __future__ import annotations

import io
import re
import tarfile

_LARGEST_HEADER = 1 << 18  # bytes of an extended header or a long name
_LARGEST_MEMBER = 1 << 62  # bytes; beyond are no offsets
_MOST_GLOBAL = 1000  # names in global headers: each member carries them all
_LONG_NUMBER = re.compile(rb"\d{257}")
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENDED = (*_PAX, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_SPARSE_EXTENDED = 504  # where an extension of a GNU sparse header says that another follows


class BoundedTarInfo(tarfile.TarInfo):
    """For `tarfile.open(..., tarinfo=BoundedTarInfo)`: every odd header is a `tarfile.TarError`.

    The data of a sparse member, whose map is not read, is its header: no picture, and no text.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not 0 <= self.size < _LARGEST_MEMBER:
            raise tarfile.ReadError(f"a header claims {self.size} bytes")
        if self.type in _EXTENDED and self.size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"an extended header of {self.size:,} bytes")
        stream = tar.fileobj
        try:
            if self.type in _PAX:
                assert stream is not None
                content = stream.read(self._block(self.size))  # type: ignore[attr-defined]
                if _LONG_NUMBER.search(content):
                    raise tarfile.ReadError("an extended header with an endless number")
                tar.fileobj = _FirstReading(content, stream)  # type: ignore[assignment]
            member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        except (ValueError, OverflowError, RecursionError) as error:
            raise tarfile.ReadError(f"a header cannot be read: {error}") from error
        finally:
            tar.fileobj = stream
        if not 0 <= member.size < _LARGEST_MEMBER or tar.offset <= self.offset:
            raise tarfile.ReadError(f"a header claims {member.size} bytes")
        if len(tar.pax_headers) > _MOST_GLOBAL:
            raise tarfile.ReadError(f"more than {_MOST_GLOBAL:,} names in global headers")
        if member.issparse():
            member.offset_data, member.sparse = member.offset, None
        return member

    def _proc_sparse(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """As tarfile does it, without the map."""
        _, extended, size = self._sparse_structs  # type: ignore[attr-defined]
        assert tar.fileobj is not None
        while extended:
            block = tar.fileobj.read(tarfile.BLOCKSIZE)
            extended = len(block) > _SPARSE_EXTENDED and block[_SPARSE_EXTENDED]
        tar.offset = tar.fileobj.tell() + self._block(self.size)  # type: ignore[attr-defined]
        self.sparse, self.size = b"", size  # not None: what `issparse` looks at
        return self

    def _proc_gnusparse_10(
        self, following: tarfile.TarInfo, pax_headers: dict[str, str], tar: tarfile.TarFile
    ) -> None:
        following.sparse = b""  # the map stands before the data, and is passed with it


class _FirstReading(io.RawIOBase):
    """A stream from which some bytes were read already; the first reading gives them."""

    def __init__(self, content: bytes, stream: object) -> None:
        self._content: bytes | None = content
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        content, self._content = self._content, None
        return self._stream.read(size) if content is None else content  # type: ignore[attr-defined]

    def tell(self) -> int:
        return self._stream.tell()  # type: ignore[attr-defined, no-any-return]
