"""The command line's last line of defence: whatever happens, a person reads one sentence.

What has a known cause (a full disk, a limit of the system, memory) is told with it. Anything else
is unexpected: its traceback goes to a file, and the sentence names the file.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from curate.base.errors import CaplabError
from curate.base.telling.events import emit, forget
from curate.base.telling.words import in_a_line, visible

UNEXPECTED = 70
"""Exit status of what nobody expected (EX_SOFTWARE)."""
KEPT_TRACEBACKS = 20
_MOST_TRACEBACK_CHARACTERS = 1 << 18
_MOST_WORDS = 300

# What a person can mend, by errno: what to do.
_REMEDIES = {
    errno.ENOSPC: "make room, and the same command continues",
    errno.EDQUOT: "make room within the quota, and the same command continues",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "give this user the right to it, or name another place",
    errno.EPERM: "give this user the right to it, or name another place",
    errno.EMFILE: "raise the limit on open files (ulimit -n), or use fewer workers",
    errno.ENFILE: "the whole system has too many open files",
    errno.ENOMEM: "free memory, or use fewer workers",
    errno.EAGAIN: "raise the limit on processes (ulimit -u), or use fewer workers",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EISDIR: "that is a directory where a file should be named",
    errno.EEXIST: "a file stands where a directory should be; choose another path",
    errno.ENOENT: "check the path",
    errno.ELOOP: "its symbolic links lead to themselves",
    errno.EIO: "the disk cannot be read or written there",
    errno.ESTALE: "the network file system lost it; the same command continues",
    errno.ENOEXEC: "it cannot be executed",
}
_OF_THE_PERSON = 1


class Terminated(BaseException):
    """A signal asked the command to end; `status` is its exit status, 128 and the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind the command, so that what it started is ended as well.

    A second one ends it at once.
    """

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP, and should
            signal.signal(number, end)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Run a command; any end but a good one is one sentence on stderr and an exit status."""
    try:
        yield
    except CaplabError as error:
        _end_by_signal_behind(error)
        _say(str(error), error.exit_code)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        emit("failed", "error", text=error.format_message(), status=error.exit_code)
        shown = io.StringIO()
        error.show(shown)
        click.echo(visible(shown.getvalue()), err=True, nl=False)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; the same command continues.", 130)
        sys.exit(130)
    except SystemExit as end:
        # click ends with 1, without a word, where nobody reads any more.
        sys.exit(128 + signal.SIGPIPE if end.code == 1 and _stdout_is_gone() else end.code)
    except Terminated as ended:
        _end_by(ended)
    except Exception as error:
        _end_by_signal_behind(error)
        _end(error)
    finally:
        forget()


def leave(status: int) -> NoReturn:
    """End the process with its exit handlers, but without taking every library apart.

    Python would look for garbage in torch and transformers for more than a second after the last
    word. Where a thread still works that a command waits for, it ends as ever.
    """
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if all(thread.daemon for thread in others):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # told before, where it matters
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _end_by_signal_behind(error: BaseException) -> None:
    """End the command where compiled code (Ray's wait) raised an error of its own for a signal."""
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, Terminated):
            _end_by(cause)
        cause = cause.__cause__


def _end_by(ended: Terminated) -> NoReturn:
    _say(f"ended by {ended}; the same command continues.", ended.status)
    sys.exit(ended.status)


def _end(error: Exception) -> NoReturn:
    if isinstance(error, OSError) and _stdout_is_gone():
        _drop_stdout()
        sys.exit(128 + signal.SIGPIPE)
    if (sentence := known(error)) is not None:
        _say(sentence, _OF_THE_PERSON)
        if isinstance(error, OSError):
            _drop_stdout()  # where the disk below it is full, a last flush fails once more
        sys.exit(_OF_THE_PERSON)
    _say(f"an unexpected {in_words(error)}.", UNEXPECTED)
    sys.exit(UNEXPECTED)


def in_words(error: BaseException) -> str:
    """An error inside of a sentence; keeps the traceback of one that nobody expected."""
    if (sentence := known(error)) is not None:
        return sentence.rstrip(".")
    place = keep_traceback(error)
    where = f"its traceback is in {place}" if place else "no place could be written for a traceback"
    cause = getattr(error, "cause", None) or error  # of Ray's, what a task raised
    return f"{type(cause).__name__} ({first_line(error)}); {where}"


def known(error: BaseException) -> str | None:
    """One sentence on an error that a person can mend; None for any other."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return (
                "out of memory; with fewer workers or smaller batches the same command continues."
            )
        if isinstance(seen, OSError) and seen.errno in _REMEDIES:
            names = [str(name) for name in (seen.filename, seen.filename2) if name is not None]
            # pyarrow's errors carry errno, and the path in their words alone.
            what = (
                f"{os.strerror(seen.errno)}{': ' if names else ''}{' and '.join(names)}"
                if seen.strerror == os.strerror(seen.errno)
                else first_line(seen)
            )
            return f"{what}; {_REMEDIES[seen.errno]}."
        # Ray's errors hold what a task raised as `cause`.
        seen = seen.__cause__ or getattr(seen, "cause", None)
    return None


def first_line(error: BaseException) -> str:
    """What an error says, on one line and not too long; Ray's tell most in their last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    line = lines[-1 if type(error).__module__.startswith("ray.") else 0]
    return (line if len(line) <= _MOST_WORDS else f"{line[:_MOST_WORDS]}...").rstrip(".")


def keep_traceback(error: BaseException) -> Path | None:
    """Write the traceback to a file of its own, and drop the oldest of more than KEPT_TRACEBACKS.

    They lie in $XDG_STATE_HOME/caption-lab/errors, by default ~/.local/state, or below the
    directory for temporary files where that cannot be written; None where neither can.
    """
    text = "".join(traceback.format_exception(error))
    if len(text) > _MOST_TRACEBACK_CHARACTERS:
        half = _MOST_TRACEBACK_CHARACTERS // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = folder / name
            path.write_text(
                f"caplab {' '.join(sys.argv[1:2])}\n{text}", "utf-8", "backslashreplace"
            )
            for old in sorted(folder.glob("*.txt"))[:-KEPT_TRACEBACKS]:
                old.unlink(missing_ok=True)
        except OSError:
            continue
        return path
    return None


def _folders() -> Iterator[Path]:
    state = os.environ.get("XDG_STATE_HOME")
    with contextlib.suppress(RuntimeError):  # there may be no home at all
        yield (
            (Path(state) if state else Path.home() / ".local" / "state") / "caption-lab" / "errors"
        )
    with contextlib.suppress(OSError):
        yield Path(tempfile.gettempdir()) / f"caption-lab-errors-{os.getuid()}"


def _say(sentence: str, status: int) -> None:
    emit("failed", "error", text=sentence, status=status)
    with contextlib.suppress(OSError):  # nobody reads, or the disk below a log is full
        click.echo(f"caplab: {in_a_line(sentence)}", err=True)


def _stdout_is_gone() -> bool:
    """Whether whoever read standard output (`caplab ... | head`) has ended."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def _drop_stdout() -> None:
    """What is still to be written to standard output goes nowhere, or Python would complain."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
