"""robots.txt: whether a site asks that a URL is not fetched (RFC 9309). Off unless asked for.

One file a site (scheme, host, port), fetched through the same guarded client as everything else and
remembered for the run. Parsed by Protego: urllib's own parser takes the first rule that matches
instead of the longest one and knows no wildcards.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass

from protego import Protego

from curate.base.reasons import FailureError, Reason
from curate.download.safe_http import SafeClient
from curate.download.urls import Target

_MOST_SITES = 20_000  # remembered by one worker
_READ_BYTES = 512_000  # RFC 9309, section 2.5: at least 500 KiB are read, the rest may be ignored
_MOST_BYTES = 5_000_000  # a longer file is a trap
_REFUSALS = frozenset(
    {Reason.HTTP_403, Reason.HTTP_404, Reason.HTTP_410, Reason.HTTP_4XX, Reason.EMPTY_BODY}
)


@dataclass(frozen=True)
class _Rules:
    """What a site's robots.txt says; `failure` is why it could not be read."""

    parsed: Protego | None = None
    failure: str | None = None


class RobotsTxt:
    """Answers for many threads; a site's file is fetched by the first that asks."""

    def __init__(self, client: SafeClient) -> None:
        """`client` fetches the files; its user agent is the one that rules are read for."""
        # X-Robots-Tag says how a page may be used, not whether rules may be read.
        self._client = client.variant(disallowed_directives=frozenset(), max_bytes=_MOST_BYTES)
        self._agent = client.limits.agent_token
        self._sites: dict[tuple[bool, str, int], Future[_Rules]] = {}
        self._lock = threading.Lock()

    def check(self, target: Target) -> float | None:
        """Let a URL pass; returns the Crawl-delay in seconds that the site asks for, if any.

        Raises:
            FailureError: disallowed_by_robots_txt, or robots_txt_unreachable: a site whose rules
                cannot be read for an error of its own is left alone (RFC 9309, 2.3.1.4). A file
                that does not exist, or is refused, forbids nothing (2.3.1.3).
        """
        rules = self._rules(target)
        if rules.failure is not None:
            raise FailureError(Reason.ROBOTS_TXT_UNREACHABLE, rules.failure)
        if rules.parsed is None:
            return None
        if not rules.parsed.can_fetch(target.url, self._agent):
            raise FailureError(Reason.DISALLOWED_BY_ROBOTS_TXT, target.path)
        return rules.parsed.crawl_delay(self._agent)

    def _rules(self, target: Target) -> _Rules:
        site = (target.tls, target.host, target.port)
        with self._lock:
            future = self._sites.get(site)
            if future is None:
                if len(self._sites) >= _MOST_SITES:
                    self._sites.clear()
                mine = self._sites[site] = Future()
        if future is not None:
            return future.result()
        try:
            rules = self._read(target)
        except BaseException as error:
            rules = _Rules(failure=f"{type(error).__name__}: {error}")
            raise
        finally:
            mine.set_result(rules)
        return rules

    def _read(self, target: Target) -> _Rules:
        try:
            body = self._client.fetch(target.at("/robots.txt").url)
        except FailureError as error:
            failure = error.failure
            if failure.reason in _REFUSALS:
                return _Rules()
            return _Rules(failure=f"{failure.reason.value} {failure.detail}".strip())
        return _Rules(Protego.parse(body.content[:_READ_BYTES].decode("utf-8", "replace")))
