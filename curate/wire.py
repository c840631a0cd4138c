"""A socket under a deadline: no answer, however slow its bytes drip, outlives its total time."""

from __future__ import annotations

import io
import socket
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


class TimedSocket:
    """The part of a socket that http.client needs, each call under the deadline.

    A plain socket timeout starts anew at every received byte, so a server that sends one byte now
    and then could hold a thread for days, in the headers and in chunk sizes as well as in the body.
    """

    def __init__(self, plain: socket.socket, deadline: Deadline) -> None:
        self._socket = plain
        self._deadline = deadline

    def sendall(self, content: bytes) -> None:
        """Send everything."""
        self._socket.settimeout(self._deadline.step())
        self._socket.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The receiving side as a buffered file; `mode` is always "rb" here."""
        return io.BufferedReader(_TimedReceiver(self._socket, self._deadline), _BUFFER)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class _TimedReceiver(io.RawIOBase):
    def __init__(self, plain: socket.socket, deadline: Deadline) -> None:
        self._socket = plain
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._socket.settimeout(self._deadline.step())
        return self._socket.recv_into(buffer)
