"""What a site asks of robots: X-Robots-Tag, and robots.txt (RFC 9309), the latter if wanted.

The header's grammar: https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag;
the directives against machine learning (noai, noimageai) were proposed by DeviantArt in 2022.

One robots.txt a site (scheme, host, port) is fetched through the same guarded client as everything
else and remembered for the run. Parsed by Protego: urllib's own parser takes the first rule that
matches instead of the longest one and knows no wildcards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from protego import Protego

from curate.base.reasons import FailureError, Reason
from curate.download.urls import Target

# Directives that carry a value after a colon; any other "name:" names a user agent.
_WITH_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)
_MOST_SITES = 20_000  # remembered by one worker
_READ_BYTES = 512_000  # RFC 9309, section 2.5: at least 500 KiB are read, the rest may be ignored
MOST_BYTES = 5_000_000  # a longer robots.txt is a trap
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

    def __init__(self, fetch: Callable[[str], bytes], agent: str) -> None:
        """`fetch` gets a URL's body or raises a FailureError; rules are read for `agent`."""
        self._fetch, self._agent = fetch, agent
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
            content = self._fetch(target.at("/robots.txt").url)
        except FailureError as error:
            failure = error.failure
            if failure.reason in _REFUSALS:
                return _Rules()
            return _Rules(failure=f"{failure.reason.value} {failure.detail}".strip())
        return _Rules(Protego.parse(content[:_READ_BYTES].decode("utf-8", "replace")))


def disallowing_directive(
    headers: Iterable[str], agent: str, disallowed: Collection[str]
) -> str | None:
    """The first directive that applies to `agent` and is in `disallowed`, or None.

    Args:
        headers: every X-Robots-Tag value, such as "noai, nofollow" or "otherbot: noindex".
        agent: our own name, lower case; a directive for another agent does not count.
        disallowed: lower-case directives.
    """
    if not disallowed:
        return None
    for header in headers:
        addressee: str | None = None
        for part in header.lower().split(","):
            name, colon, rest = (piece.strip() for piece in part.partition(":"))
            # A time of day inside unavailable_after has a colon as well; agents have no spaces.
            if colon and (name in _WITH_VALUE or " " in name):
                continue
            if colon:
                addressee, name = name, rest
            # "none" is short for "noindex, nofollow".
            means = "noindex" if name == "none" else name
            if means in disallowed and addressee in (None, agent):
                return name
    return None
