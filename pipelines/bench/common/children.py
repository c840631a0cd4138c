"""Child processes that never outlive the process that started them, not even by its kill -9.

`tied(command)` is a command that does the same and ends with its parent, for any function of
`subprocess`. It costs the start of a bare Python, some 20 ms. Run as a file, this module is that
start: it asks Linux for the child's end (PR_SET_PDEATHSIG, which exec keeps) and becomes the
command. Elsewhere the command runs as it is.

The kernel's parent is a thread: start what is to live on from a thread that lives as long.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied(command: Sequence[object]) -> list[str]:
    """`command` as one that is killed when this process ends."""
    parts = [os.fspath(part) if isinstance(part, os.PathLike) else str(part) for part in command]
    # Isolated: nothing of the command's environment is for this start.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *parts]


def _become(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        os._exit(127)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
