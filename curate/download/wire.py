"""A connection under a deadline: no answer, however slowly it drips, outlives its total time."""

from __future__ import annotations

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
