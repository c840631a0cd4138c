"""Fetches a shard's URLs with many threads: the hosts in turn, each within its limits.

A thread takes a job, makes one request, and either finishes the row (decoding included, so that no
undecoded file waits in a queue) or gives the job back: to another host after a redirect, or to the
same one for a later try. Nothing sleeps while it holds a thread or a connection.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from curate.base.reasons import Failure, FailureError, Reason
from curate.download.hosts import Hosts
from curate.download.robots import RobotsTxt
from curate.download.safe_http import Body, HttpFailureError, SafeClient
from curate.download.schedule import Job, Schedule
from curate.download.urls import Target

T = TypeVar("T")

# Reasons that mean that the host itself did not answer, or not as it should.
_NO_ANSWER = frozenset(
    {
        Reason.DNS,
        Reason.CONNECTION_REFUSED,
        Reason.CONNECTION_LOST,
        Reason.TIMEOUT,
        Reason.TLS,
        Reason.BAD_RESPONSE,
        Reason.HTTP_429,
        Reason.HTTP_5XX,
        Reason.TOO_LARGE,
        Reason.INCOMPLETE_BODY,
    }
)
_OVERLOADED = frozenset({Reason.HTTP_429, Reason.HTTP_5XX})


class Fetcher(Generic[T]):
    """Fetches jobs and hands each file to `finish`, a function for many threads."""

    def __init__(
        self,
        client: SafeClient,
        hosts: Hosts,
        robots: RobotsTxt | None,
        retries: int,
        threads: int,
        finish: Callable[[Job, bytes], T | Failure],
    ) -> None:
        """`retries` further tries of a URL follow an error that may pass."""
        self._client = client
        self._hosts = hosts
        self._robots = robots
        self._retries = retries
        self._threads = threads
        self._finish = finish

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[int, T | Failure]]:
        """(position, outcome) of every job, as they finish.

        At most a few outcomes more than there are threads wait to be taken.
        """
        schedule = Schedule(jobs, self._hosts)
        done: queue.Queue[tuple[int, T | Failure] | BaseException] = queue.Queue(8)
        threads = [
            threading.Thread(target=self._work, args=(schedule, done), daemon=True)
            for _ in range(min(self._threads, len(jobs)))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in jobs:
                outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
        finally:
            schedule.cancel()
            for thread in threads:
                while thread.is_alive():
                    with contextlib.suppress(queue.Empty):
                        done.get_nowait()  # a thread may wait for room in the queue
                    thread.join(0.02)

    def _work(
        self, schedule: Schedule, done: queue.Queue[tuple[int, T | Failure] | BaseException]
    ) -> None:
        while (job := schedule.take()) is not None:
            try:
                outcome = self._attempt(schedule, job)
            except BaseException as error:
                done.put(error)
                return
            if outcome is not None:
                done.put((job.position, outcome))

    def _attempt(self, schedule: Schedule, job: Job) -> T | Failure | None:
        """One request; None where the job was given back."""
        host = job.host
        begun = time.monotonic()
        try:
            answer = self._request(job)
        except FailureError as error:
            return self._failed(schedule, job, host, error, time.monotonic() - begun)
        seconds = time.monotonic() - begun
        job.seconds += seconds
        self._hosts.end(host, seconds, answered=True)
        if isinstance(answer, Target):
            return self._moved(schedule, job, host, answer)
        try:
            return self._finish(job, answer.content)
        finally:
            schedule.finish(job, host)

    def _request(self, job: Job) -> Body | Target:
        budget = self._hosts.remaining(job.host)
        if budget <= 0:
            why = self._hosts.account(job.host).reason
            raise FailureError(Reason.HOST_BUDGET, f"{job.host}: {why}" if why else job.host)
        if self._robots is not None:
            delay = self._robots.check(job.target)
            if delay:
                self._hosts.slow_down(job.host, delay)
        left = self._client.limits.total_timeout - job.seconds
        return self._client.hop(job.target, self._client.deadline(min(left, budget)))

    def _moved(self, schedule: Schedule, job: Job, host: str, target: Target) -> Failure | None:
        job.hops += 1
        job.target = target
        if job.hops > self._client.limits.max_redirects:
            schedule.finish(job, host)
            return Failure(
                Reason.TOO_MANY_REDIRECTS, f"more than {self._client.limits.max_redirects}"
            )
        schedule.again(job, host)
        return None

    def _failed(
        self, schedule: Schedule, job: Job, host: str, error: FailureError, seconds: float
    ) -> Failure | None:
        """The failure, or None where the job was given back for another try."""
        reason = error.failure.reason
        job.seconds += seconds
        if reason is Reason.HOST_BUDGET:
            self._hosts.end(host, 0.0, answered=False, why=self._hosts.account(host).reason)
            schedule.finish(job, host)
            return error.failure
        self._hosts.end(host, seconds, reason not in _NO_ANSWER, reason.value)
        job.failures += 1
        wait = self._hosts.backoff(job.key, job.failures)
        asked = error.retry_after if isinstance(error, HttpFailureError) else None
        if reason in _OVERLOADED and (asked is not None or reason is Reason.HTTP_429):
            # The server spoke for all its URLs, so all of them wait.
            wait = max(wait, asked or 0.0)
            self._hosts.pause(host, wait, f"{reason.value}, asked to wait {wait:.0f} s")
        again = (
            reason.may_pass
            and job.failures <= self._retries
            and job.seconds < self._client.limits.total_timeout
            and self._hosts.remaining(host) > 0
        )
        if not again:
            schedule.finish(job, host)
            return error.failure
        job.hops, job.target = 0, job.first
        schedule.again(job, host, wait)
        return None
