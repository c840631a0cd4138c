"""Workers as Ray actors: on a cluster, or where a machine's GPUs are shared out."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import Any, Generic

from pipelines.runners.overheard import Ear, Overheard, told_again
from pipelines.runners.protocol import Result, Task, Work, Worker
from pipelines.runners.ray_session import ray_session


class OnRay:
    """The runner on Ray, which is started or joined when the first workers are asked for."""

    def __init__(self, ended: ExitStack, address: str | None) -> None:
        """`ended`: closed when the runner is done with; `address`: None starts a local Ray."""
        self._ended = ended
        self._address = address
        self._started = False

    def _start(self) -> None:
        if not self._started:
            self._ended.enter_context(ray_session(self._address))
            self._started = True

    def machines(self) -> list[int]:
        """CPUs of each node."""
        import ray

        self._start()
        return [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]

    def gpus(self) -> int:
        """Of all nodes."""
        import ray

        self._start()
        return int(ray.cluster_resources().get("GPU", 0))

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
        """See `Runner.together`; Ray Train places the processes and joins them."""
        from pipelines.runners.ray_train import run_torch_trainer

        self._start()
        run_torch_trainer(work, task, count, cpus, gpus, beat)

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
        """See `Runner.workers`."""
        import ray
        from ray import cloudpickle

        self._start()
        actor = ray.remote(_Actor).options(num_cpus=cpus, num_gpus=gpus, max_concurrency=at_once)
        payload = ray.put(cloudpickle.dumps(work))
        crew: list[_OnRay[Task, Result]] = [_OnRay(actor, payload, cpus) for _ in range(count)]
        try:
            yield crew
        finally:
            for worker in crew:
                worker.end()


class _OnRay(Generic[Task, Result]):
    """One actor, made with its first task, and anew after a failure."""

    def __init__(self, actor: Any, payload: Any, cpus: int) -> None:
        self._actor, self._payload, self._cpus = actor, payload, cpus
        self._living: Any = None
        self._given: weakref.WeakSet[Future[Result]] = weakref.WeakSet()

    def submit(self, task: Task) -> Future[Result]:
        if self._living is None:
            self._living = self._actor.remote(self._payload, self._cpus)
        future: Future[Result] = told_again(self._living.run.remote(task).future(), aloud=True)
        self._given.add(future)
        return future

    def replace(self, failed: Future[Result]) -> None:
        """End the actor unless it is a fresh one already."""
        if failed in self._given:
            self.end()

    def end(self) -> None:
        """End the actor now, whatever it does."""
        import ray

        living, self._living = self._living, None
        self._given.clear()
        if living is not None:
            ray.kill(living)


class _Actor:
    """Holds the work, which is unpacked with the first task, when the environment is set."""

    def __init__(self, payload: bytes, cpus: int) -> None:
        # Ray sets it for some schedulings only; torch must see the reserved CPUs.
        os.environ["OMP_NUM_THREADS"] = str(cpus)
        from ray import cloudpickle

        self._ear = Ear()
        self._work = cloudpickle.loads(payload)

    def run(self, task: Any) -> Overheard[Any]:
        return self._ear.overhear(self._work, task)
