"""What one host may cost and how often it may be asked: connections, pauses, a budget of time.

A list of a million URLs holds hosts that are dead, that answer one byte a second, or that ask for
peace (429 with Retry-After). Each host has its own account here, and a run loses at most that
host's budget to it: afterwards the rest of its URLs fail at once with `host_budget`, which
`--retry-failed` takes up again.

Accounts are kept by each worker for the length of its run, so W workers together may open W times
the connections and lose W budgets.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

_MOST_ACCOUNTS = 100_000  # remembered by one worker; accounts without debts are dropped first


@dataclass(frozen=True)
class HostLimits:
    """What one host may cost."""

    connections: int = 16
    """Requests under way at a time."""
    interval: float = 0.0
    """Seconds between the beginnings of two requests."""
    budget: float = 120.0
    """Seconds of connection time that may be lost to tries that failed, pauses and slow answers."""
    fair: float = 5.0
    """Seconds that an answer may take before its host pays for it; quick answers pay back."""
    backoff: float = 0.5
    """Seconds before the first further try, doubled before each one after it."""
    longest_backoff: float = 30.0


@dataclass
class Account:
    """One host's state. Guarded by the lock of `Hosts`."""

    spent: float = 0.0  # seconds of the budget
    active: int = 0  # requests under way
    not_before: float = 0.0  # monotonic time before which no request may begin
    interval: float = 0.0  # seconds between beginnings; robots.txt may raise it
    reason: str = field(default="")  # what used the budget up last, for a person


class Hosts:
    """The accounts of all hosts. Safe to use from many threads."""

    def __init__(self, limits: HostLimits, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives monotonic seconds."""
        self.limits = limits
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._lock = threading.Lock()

    def account(self, host: str) -> Account:
        """The account of a host, made where there is none."""
        with self._lock:
            if len(self._accounts) >= _MOST_ACCOUNTS:
                self._accounts = {
                    name: account
                    for name, account in self._accounts.items()
                    if account.active or account.spent or account.not_before > self._clock()
                }
            return self._accounts.setdefault(host, Account(interval=self.limits.interval))

    def remaining(self, host: str) -> float:
        """Seconds left of the host's budget; none or fewer where it is used up."""
        return self.limits.budget - self.account(host).spent

    def begin(self, host: str) -> None:
        """A request begins."""
        account = self.account(host)
        with self._lock:
            account.active += 1
            account.not_before = max(account.not_before, self._clock() + account.interval)

    def end(self, host: str, seconds: float, answered: bool, why: str = "") -> None:
        """A request ended after `seconds`.

        Args:
            answered: whether it got what HTTP calls an answer. One that came within
                `limits.fair` seconds pays back what it was quicker; everything else costs.
            why: the reason where it was none.
        """
        account = self.account(host)
        with self._lock:
            account.active -= 1
            cost = seconds - self.limits.fair if answered else seconds
            account.spent = max(0.0, account.spent + cost)
            if not answered:
                account.reason = why

    def pause(self, host: str, seconds: float, why: str = "") -> None:
        """Ask the host for nothing during the next seconds; the wait counts as spent."""
        account = self.account(host)
        with self._lock:
            until = self._clock() + seconds
            # Several answers that ask for the same pause are one pause.
            added = until - max(account.not_before, self._clock())
            if added > 0:
                account.spent += added
                account.not_before = until
                account.reason = why

    def slow_down(self, host: str, interval: float) -> None:
        """At least `interval` seconds between beginnings, as robots.txt may ask (Crawl-delay)."""
        account = self.account(host)
        with self._lock:
            if interval > account.interval:
                account.interval = interval
                account.not_before = max(account.not_before, self._clock() + interval)

    def backoff(self, key: str, failures: int) -> float:
        """Seconds to wait after the `failures`-th failed try: doubled each time, with jitter.

        The jitter, a factor of 0.5 to 1.5, comes from the key and the number of the try and not
        from chance, so that tries spread and yet every run waits alike.
        """
        digest = hashlib.blake2b(f"{key} {failures}".encode(), digest_size=8).digest()
        jitter = 0.5 + int.from_bytes(digest, "big") / 2**64
        pause = self.limits.backoff * 2.0 ** (failures - 1)
        return min(pause, self.limits.longest_backoff) * jitter


def retry_after(header: str | None, now: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks to wait; None where it says nothing readable.

    RFC 9110, section 10.2.3: a number of seconds, or a date. Some servers send fractions.

    Args:
        now: seconds since the epoch; by default the clock's.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]+([.][0-9]+)?", text):
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    try:
        return max(0.0, date.timestamp() - (time.time() if now is None else now))
    except (OverflowError, OSError, ValueError):
        return None
