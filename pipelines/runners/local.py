"""Workers on this machine: processes of the standard library's pool, or this process itself.

Each worker is a `ProcessPoolExecutor` of one process, for a pool of several breaks as a whole when
one dies, and nobody could say whose task it was. Every process holds one end of a pipe, its line:
when the other end closes, because the run ends or because the driver was killed, it ends at once.
One that hangs with the interpreter's lock cannot; of the driver's end Linux ends it in any case.
"""

from __future__ import annotations

import glob
import os
import pickle
import queue
import signal
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe, active_children, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic

import psutil
from tqdm import tqdm

from curate.base.errors import StageError
from curate.base.telling.events import is_quiet
from pipelines.runners.hand_out import Failed, hand_out
from pipelines.runners.overheard import Ear, Overheard, told_again
from pipelines.runners.protocol import Result, Task, Work, Worker

_END_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
_ENVIRONMENT = {
    # glibc gives each thread an arena and returns large blocks to the system at once; pictures
    # come and go in many threads, and every page would be fetched and cleared anew.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 27),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
}


def gpus_here() -> int:
    """NVIDIA GPUs of this machine that CUDA_VISIBLE_DEVICES leaves to us. Loads no driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(glob.glob("/dev/nvidia[0-9]*"))


class Local:
    """The runner without Ray."""

    def __init__(self, processes: bool = True) -> None:
        """`processes`: False lets this process do everything, task after task."""
        self._processes = processes

    def machines(self) -> list[int]:
        """CPUs of this one."""
        return [os.cpu_count() or 1]

    def gpus(self) -> int:
        """Of this one."""
        return gpus_here()

    def together(
        self,
        work: Work[Task, Result],
        task: Task,
        count: int,
        *,
        cpus: int = 1,
        gpus: float = 0.0,
        beat: Callable[[], object] | None = None,
    ) -> None:
        """See `Runner.together`. The meeting place is a store of this process, as in torchrun."""
        from torch.distributed import TCPStore

        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        places = [
            {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                # The store is there already; rank 0 does not open one.
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
            }
            for rank in range(count)
        ]
        with self.workers(_Placed(work, task), count, cpus=cpus) as crew:
            for place, outcome in hand_out(crew, places, tries=1, beat=beat):
                if isinstance(outcome, Failed):
                    raise StageError(f"process {place['RANK']} of {count}: {outcome.reason}")

    @contextmanager
    def workers(
        self,
        work: Work[Task, Result],
        count: int,
        *,
        cpus: int = 1,
        gpus: float = 0.0,
        at_once: int = 1,
        here: bool = False,
    ) -> Iterator[Sequence[Worker[Task, Result]]]:
        """See `Runner.workers`. A process takes one task after another; this one, several."""
        if not self._processes or (here and count == 1):
            yield [_Here(work) if at_once == 1 else _Threads(work, at_once)]
            return
        payload = pickle.dumps(work)
        environment = {**_ENVIRONMENT, "OMP_NUM_THREADS": str(cpus)}
        crew: list[_Process[Task, Result]] = [_Process(payload, environment) for _ in range(count)]
        try:
            yield crew
        finally:
            for worker in crew:
                worker.end()


@dataclass(frozen=True)
class _Placed(Generic[Task, Result]):
    """Does one task at a place among several processes."""

    work: Work[Task, Result]
    task: Task

    def __call__(self, place: dict[str, str]) -> Result:
        os.environ.update(place)
        return self.work(self.task)


class _Here(Generic[Task, Result]):
    """Does a task when it is handed over, in the caller's thread, which Ctrl-C can interrupt."""

    def __init__(self, work: Work[Task, Result]) -> None:
        self._work = work

    def submit(self, task: Task) -> Future[Result]:
        future: Future[Result] = Future()
        _fill(future, self._work, task)
        return future

    def replace(self, failed: Future[Result]) -> None:
        """There is no other."""


class _Threads(Generic[Task, Result]):
    """Does tasks in a few threads, which wait for a server and end with the process."""

    def __init__(self, work: Work[Task, Result], threads: int) -> None:
        self._work = work
        self._tasks: queue.SimpleQueue[tuple[Future[Result], Task]] = queue.SimpleQueue()
        for _ in range(threads):
            threading.Thread(target=self._serve, daemon=True).start()

    def submit(self, task: Task) -> Future[Result]:
        future: Future[Result] = Future()
        self._tasks.put((future, task))
        return future

    def replace(self, failed: Future[Result]) -> None:
        """There is no other."""

    def _serve(self) -> None:
        while True:
            future, task = self._tasks.get()
            _fill(future, self._work, task)


def _fill(future: Future[Result], work: Callable[[Task], Result], task: Task) -> None:
    try:
        future.set_result(work(task))
    except Exception as error:
        future.set_exception(error)


class _Process(Generic[Task, Result]):
    """One process, started with its first task, and anew after a failure."""

    def __init__(self, payload: bytes, environment: Mapping[str, str]) -> None:
        self._payload = payload
        self._environment = environment
        self._pool: ProcessPoolExecutor | None = None
        self._process: BaseProcess | None = None
        self._line: Connection | None = None
        self._given: weakref.WeakSet[Future[Result]] = weakref.WeakSet()

    def submit(self, task: Task) -> Future[Result]:
        if self._pool is not None:
            future = told_again(self._pool.submit(_run, task))
        else:
            before = set(active_children())
            theirs, self._line = Pipe(duplex=False)
            arguments = (self._payload, theirs, is_quiet())
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, arguments)
            try:
                with theirs, _starting(self._environment, self._payload):
                    future = told_again(self._pool.submit(_run, task))
                # None where it has ended already.
                self._process = next(iter(set(active_children()) - before), None)
            except OSError:
                self._pool = None  # of a process that never was there is nothing to end
                self._line.close()
                raise
        self._given.add(future)
        return future

    def replace(self, failed: Future[Result]) -> None:
        """End the process unless it is a fresh one already."""
        if failed in self._given:
            self.end()

    def end(self) -> None:
        """End the process now, whatever it does, and wait until it is gone."""
        pool, self._pool = self._pool, None
        self._given.clear()
        if pool is not None and self._line is not None:
            process = self._process
            family = _family(process.pid) if process else []
            self._line.close()
            if process and not wait([process.sentinel], _END_SECONDS):
                process.kill()  # it holds the interpreter's lock, and does not hear us
            for orphan in family:
                with suppress(psutil.NoSuchProcess):
                    orphan.kill()
            pool.shutdown(wait=True, cancel_futures=True)


def _family(process: int | None) -> list[psutil.Process]:
    """What a process has started, such as vLLM's engine: it would outlive it."""
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@contextmanager
def _starting(environment: Mapping[str, str], payload: bytes) -> Iterator[None]:
    """What a process that is started inside of the block finds.

    Its environment has to be there before it loads a library. And it does not run the program of
    the driver once more, as `spawn` has it: that costs the imports of a command line, and a script
    without a guard would start itself over and over. Unless the work is made of its classes.
    """
    missing = {name: value for name, value in environment.items() if name not in os.environ}
    main = sys.modules["__main__"]
    # Ctrl-C reaches all processes of a terminal, also one that is not yet told what to do then.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(missing)
    if b"__main__" not in payload:
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name in missing:
            del os.environ[name]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- inside of a worker's process ---------------------------------------------------------------

_payload = b""
_work: Callable[[Any], Any] | None = None
_ear: Ear


def _begin(payload: bytes, line: Connection, quiet: bool) -> None:
    global _payload, _ear
    _payload, _ear = payload, Ear()
    if sys.platform == "linux":
        import ctypes

        # Of the thread that started it, which waits for all that it hands out.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Its own lock is a semaphore of the system, which a process that is ended would leave behind.
    tqdm.set_lock(threading.RLock())
    if quiet:  # errors come back as exceptions; all else here are remarks
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)  # what a stage prints is not what the command says
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver, interrupted as well, ends us
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()


def _end_with(line: Connection) -> None:
    line.poll(None)  # nothing is ever sent: it is readable when the other end is closed
    os._exit(1)


def _run(task: Any) -> Overheard[Any]:
    global _work
    try:
        if _work is None:
            _work = pickle.loads(_payload)  # safe: the process that started us wrote it
        return _ear.overhear(_work, task)
    except Exception as error:
        if _travels(error):
            raise
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _travels(error: Exception) -> bool:
    """Whether an error survives pickling; one that does not would break the whole pool."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class of anybody's may fail in any way
        return False
    return True
