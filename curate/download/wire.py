"""A connection under a deadline, and the answers that come over it one after the other.

No answer, however slowly it drips, outlives its total time. And none is taken for another:
http.client takes an interim answer (RFC 9110, section 15.2) for the final one, believes the first
of two lengths and reads past lengths that are none; each of them puts the rest of one answer before
the next one, which then stands under another URL. Here an answer's end is sure, or the connection
is closed.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time

_BUFFER = 1 << 16


class Deadline:
    """The time left for one URL."""

    def __init__(self, step_seconds: float, total_seconds: float) -> None:
        self._step = step_seconds
        self._end = time.monotonic() + total_seconds

    def remaining(self) -> float:
        """Seconds left of the total; negative when it is over."""
        return self._end - time.monotonic()

    def step(self) -> float:
        """Seconds that the next connect, send or receive may take.

        Raises:
            TimeoutError: nothing is left of the total.
        """
        remaining = self.remaining()
        if remaining <= 0:
            raise TimeoutError("total time is over")
        return min(self._step, remaining)

    def within(self, seconds: float) -> Deadline:
        """A deadline that is over in `seconds`, or with this one."""
        return Deadline(self._step, min(seconds, self.remaining()))


class Connection:
    """A socket as http.client needs it, for several answers, each call under a deadline.

    A plain socket timeout starts anew at every received byte, so a server that sends one byte now
    and then could hold a thread for days, in the headers and in chunk sizes as well as in the body.
    """

    def __init__(self, plain: socket.socket, deadline: Deadline) -> None:
        self._socket = plain
        self._receiver = _TimedReceiver(plain, deadline)
        self._reader = _KeptReader(self._receiver, _BUFFER)
        self.idle_since = 0.0  # monotonic
        self.answers = 0  # got over this connection

    def renew(self, deadline: Deadline) -> None:
        """Everything from here on is under `deadline`."""
        self._receiver.deadline = deadline

    def hurry(self, seconds: float) -> None:
        """Everything from here on is over in `seconds`, or when it would have been."""
        self._receiver.deadline = self._receiver.deadline.within(seconds)

    def sendall(self, content: bytes) -> None:
        """Send everything."""
        self._socket.settimeout(self._receiver.deadline.step())
        self._socket.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The receiving side; `mode` is always "rb" here. One buffer serves all answers."""
        return self._reader

    def unread(self) -> bytes | None:
        """What has come and was not read: None for nothing, no bytes for the connection's end."""
        self._receiver.paused = True
        try:
            if buffered := self._reader.peek(1):
                return buffered
        finally:
            self._receiver.paused = False
        try:
            # Not by a poll: TLS keeps unpacked bytes to itself, and sends some of its own.
            self._socket.settimeout(0)
            return self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError:
            return b""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class _KeptReader(io.BufferedReader):
    """http.client closes the file of an answer; this one outlives it."""

    def close(self) -> None:
        """Stay open: the connection is closed as a whole."""


class _TimedReceiver(io.RawIOBase):
    def __init__(self, plain: socket.socket, deadline: Deadline) -> None:
        self._socket = plain
        self.deadline = deadline
        self.paused = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        if self.paused:
            return None  # "nothing at the moment": shows what the buffer still holds
        self._socket.settimeout(self.deadline.step())
        return self._socket.recv_into(buffer)


# ---- answers -------------------------------------------------------------------------------------

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
