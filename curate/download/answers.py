"""An answer on a connection that carries others too: its head, and where its body ends.

http.client takes an interim answer (RFC 9110, section 15.2) for the final one, believes the first
of two lengths and reads past lengths that are none. Each of them puts the rest of one answer before
the next one, which then stands under another URL. This module knows when an answer's end is sure.
"""

from __future__ import annotations

import contextlib
import http.client

from curate.download.wire import Connection

_MOST_INTERIM = 100  # answers before the final one
_WITHOUT_BODY = frozenset({204, 205, 304})  # and yet many a server sends one
# An answer that nobody wants is read to its end if that costs no more than a new connection would.
_SHORT = 1 << 16  # bytes
_DRAIN_SECONDS = 0.25


class Answer:
    """A final answer, its head read. The body is whatever `read` gives."""

    def __init__(self, connection: Connection, method: str = "GET") -> None:
        """Read past every interim answer, to the end of the final one's head.

        Raises:
            http.client.HTTPException: what came is no HTTP.
            OSError: the connection broke, or nothing came in time.
        """
        self._connection = connection
        self._response = _final(connection, method)
        self.status: int = self._response.status
        self.reason: str = self._response.reason  # the status in the server's words
        self.headers: http.client.HTTPMessage = self._response.headers
        self.fault: str | None = None
        """Why nobody can say where the body ends; such a body is not to be read."""
        # Whether another answer may follow: what http.client could not read in the head may have
        # been a length.
        self._sure = not self.headers.defects and self.status not in _WITHOUT_BODY
        try:
            self._settle_body()
        except ValueError as error:
            self.fault = str(error)
        self._sure = self._sure and self.fault is None and not self._response.will_close

    @property
    def length(self) -> int | None:
        """Bytes of the body that are left to read, where its length was announced."""
        return self._response.length

    def read(self, most: int) -> bytes:
        """Up to `most` bytes of the body; fewer mean that it, or the connection, has ended.

        Raises:
            http.client.IncompleteRead: the connection ended inside a chunk.
            OSError: the connection broke, or nothing came in time.
        """
        return self._response.read(most)

    def drain(self) -> None:
        """Read the rest of a short answer that nobody wants, so that another may follow it.

        What goes wrong here costs the connection and nothing else.
        """
        if self._sure and not self.is_over() and (self.length or 0) <= _SHORT:
            self._connection.hurry(_DRAIN_SECONDS)
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self.read(_SHORT + 1)

    def is_over(self) -> bool:
        """Whether all was read, so that the next byte on the connection is the next answer's."""
        return self._sure and self._response.isclosed() and not self.length

    def _settle_body(self) -> None:
        """Chunks or a length (RFC 9112, section 6.3); ValueError where neither can be right."""
        response = self._response
        lengths = _values(self.headers, "Content-Length")
        if len(set(lengths)) > 1:
            raise ValueError(f"Content-Length is {' and '.join(dict.fromkeys(lengths))}")
        if not all(length.isascii() and length.isdigit() for length in lengths):
            raise ValueError(f"Content-Length is {lengths[0]!r}")
        codings = _values(self.headers, "Transfer-Encoding")
        if set(codings) - {"identity"}:
            if set(codings) != {"chunked"}:
                raise ValueError(f"Transfer-Encoding is {', '.join(codings)}")
            # Two ends to choose from, or chunks from a server too old to know them: the answer may
            # be read, but the connection is not to be trusted any further (section 6.1).
            self._sure = self._sure and not lengths and response.version > 10
            response.chunked, response.chunk_left, response.length = True, None, None
        elif lengths and response.length != 0:
            response.length = int(lengths[0])


def _final(connection: Connection, method: str) -> http.client.HTTPResponse:
    for _ in range(_MOST_INTERIM):
        response = http.client.HTTPResponse(connection, method=method)  # type: ignore[arg-type]
        response.begin()
        if response.status == http.client.SWITCHING_PROTOCOLS:
            raise http.client.HTTPException("the server switches protocols unasked")
        if response.status >= 200:
            return response
    raise http.client.HTTPException(f"more than {_MOST_INTERIM} interim answers")


def _values(headers: http.client.HTTPMessage, name: str) -> list[str]:
    """The parts of all fields of a name, lower case."""
    fields = headers.get_all(name, [])
    return [part.strip().lower() for field in fields for part in field.split(",")]
