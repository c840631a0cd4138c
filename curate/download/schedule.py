"""Which URL is fetched next: many hosts in turn, each within its limits, retries when due.

Hosts take turns, so a list that is sorted by site does not hammer one and a slow one holds nobody
up: a host that pauses, or has all its connections busy, is passed over. Cost a step: the logarithm
of the number of hosts. Memory: the URLs of one shard.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from curate.download.hosts import Hosts
from curate.download.urls import Target


@dataclass
class Job:
    """One row's way to its picture."""

    position: int  # in the shard
    key: str
    target: Target  # what to ask for now; a redirect changes it
    failures: int = 0  # tries that failed
    hops: int = 0  # redirects of this try
    seconds: float = 0.0  # spent on it so far, waiting not counted
    first: Target = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.target

    @property
    def host(self) -> str:
        """Whose account the next request is on."""
        return self.target.host


class Schedule:
    """Hands out jobs. Safe to use from many threads."""

    def __init__(
        self, jobs: Iterable[Job], hosts: Hosts, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take all jobs of a shard; `clock` is that of `hosts`."""
        self._hosts = hosts
        self._clock = clock
        self._changed = threading.Condition()
        self._fresh: dict[str, deque[Job]] = {}
        self._due: dict[str, list[tuple[float, int, Job]]] = {}
        # When each host is looked at next. An entry counts if it is the one in `_listed`.
        self._turns: list[tuple[float, int, str]] = []
        self._listed: dict[str, float] = {}
        self._count = 0
        self._open = 0
        self._cancelled = False
        for job in jobs:
            self._fresh.setdefault(job.host, deque()).append(job)
            self._open += 1
        with self._changed:
            for host in self._fresh:
                self._list(host, 0.0)

    def take(self) -> Job | None:
        """The next job; waits until there is one that may begin. None when all are finished.

        A job whose host has used up its budget comes at once; whoever takes it checks that.
        """
        with self._changed:
            while self._open and not self._cancelled:
                now = self._clock()
                while self._turns and self._turns[0][0] <= now:
                    when, _, host = heapq.heappop(self._turns)
                    if self._listed.get(host) != when:
                        continue  # listed anew for an earlier time since
                    del self._listed[host]
                    job = self._job_of(host, now)
                    if job is not None:
                        self._hosts.begin(host)
                        self._list(host, now)  # behind the other hosts whose turn it is
                        return job
                wait = self._turns[0][0] - self._clock() if self._turns else None
                self._changed.wait(None if wait is None else max(0.0, wait))
            return None

    def finish(self, job: Job, host: str) -> None:
        """The job has its outcome; `host` is the one that it was taken for."""
        with self._changed:
            self._open -= 1
            if not self._open:
                self._changed.notify_all()
            self._list(host, 0.0)

    def again(self, job: Job, host: str, wait: float = 0.0) -> None:
        """The job is to be taken once more after `wait` seconds, perhaps for another host."""
        with self._changed:
            self._count += 1
            due = self._due.setdefault(job.host, [])
            heapq.heappush(due, (self._clock() + wait, self._count, job))
            self._list(host, 0.0)
            self._list(job.host, 0.0)

    def cancel(self) -> None:
        """Nothing more is handed out."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def _list(self, host: str, when: float) -> None:
        if self._listed.get(host, float("inf")) <= when:
            return
        if not (self._fresh.get(host) or self._due.get(host)):
            return
        self._listed[host] = when
        self._count += 1
        heapq.heappush(self._turns, (when, self._count, host))
        self._changed.notify()

    def _job_of(self, host: str, now: float) -> Job | None:
        """A job of `host` that may begin now; lists the host for later where there is none."""
        fresh, due = self._fresh.get(host), self._due.get(host)
        if self._hosts.remaining(host) <= 0:
            return fresh.popleft() if fresh else heapq.heappop(due)[2] if due else None
        account = self._hosts.account(host)
        if account.active >= self._hosts.limits.connections:
            return None  # the next job of this host that ends lists it again
        if account.not_before > now:
            self._list(host, account.not_before)
            return None
        if due and due[0][0] <= now:
            return heapq.heappop(due)[2]
        if fresh:
            return fresh.popleft()
        if due:
            self._list(host, due[0][0])
        return None
