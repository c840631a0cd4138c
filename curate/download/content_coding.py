"""Bodies that come packed though nobody asked for it: Content-Encoding (RFC 9110, section 8.4)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from curate.base.reasons import FailureError, Reason
from curate.pictures.sniff import sniff

# zlib's words for the containers (zlib.h, inflateInit2). "deflate" means zlib's, and many servers
# send the bare stream in its place.
_GZIP, _ZLIB, _BARE = 31, 15, -15
_CONTAINERS = {"gzip": (_GZIP,), "x-gzip": (_GZIP,), "deflate": (_ZLIB, _BARE)}
_NOT_UNPACKED = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi"})
_MOST_CODINGS = 4
_MOST_MEMBERS = 64  # of one gzip file (RFC 1952, section 2.2)
_GZIP_MAGIC = b"\x1f\x8b"


def unpacked(content: bytes, fields: Iterable[str], limit: int) -> bytes:
    """A body without its content codings; a picture that only claims to be packed is left as it is.

    Args:
        fields: every Content-Encoding value, such as "gzip" or "deflate, gzip". Words that are no
            codings ("none", "utf-8") change nothing, as in browsers.
        limit: bytes that each step may unpack to; memory is one more.

    Raises:
        FailureError: unsupported_encoding, too_large, incomplete_body (the stream is cut short) or
            bad_response (it is damaged).
    """
    words = [part.strip().lower() for field in fields for part in field.split(",")]
    codings = [word for word in words if word in _CONTAINERS or word in _NOT_UNPACKED]
    for number, coding in enumerate(reversed(codings)):  # the last one was laid on top
        try:
            if coding in _NOT_UNPACKED or number >= _MOST_CODINGS:
                said = ", ".join(codings)
                raise FailureError(Reason.UNSUPPORTED_ENCODING, f"Content-Encoding is {said}")
            content = _one_step(content, coding, limit)
        except (zlib.error, FailureError) as error:
            if sniff(content) is not None:
                return content
            if isinstance(error, FailureError):
                raise
            raise FailureError(Reason.BAD_RESPONSE, f"no {coding}: {error}") from error
    return content


def _one_step(content: bytes, coding: str, limit: int) -> bytes:
    *likelier, last = _CONTAINERS[coding]
    for container in likelier:
        try:
            return _inflated(content, container, limit)
        except zlib.error:
            continue
    return _inflated(content, last, limit)


def _inflated(content: bytes, container: int, limit: int) -> bytes:
    """The stream's content; what stands behind it is left out, but for further members of gzip."""
    parts: list[bytes] = []
    left = limit + 1
    for _ in range(_MOST_MEMBERS):
        stream = zlib.decompressobj(container)
        part = stream.decompress(content, left)
        parts.append(part)
        left -= len(part)
        if left <= 0:
            raise FailureError(Reason.TOO_LARGE, f"unpacks to more than {limit:,} bytes")
        if not stream.eof:
            raise FailureError(Reason.INCOMPLETE_BODY, "the packed body is cut short")
        content = stream.unused_data
        if container != _GZIP or not content.startswith(_GZIP_MAGIC):
            return b"".join(parts)
    raise FailureError(Reason.TOO_LARGE, f"more than {_MOST_MEMBERS} gzip members")
