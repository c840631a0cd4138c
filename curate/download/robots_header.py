"""X-Robots-Tag: whether a server asks that its picture is not used.

Grammar: https://developers.google.com/search/docs/crawling-indexing/robots-meta-tag; the
directives against machine learning (noai, noimageai) were proposed by DeviantArt in 2022.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

# Directives that carry a value after a colon; any other "name:" names a user agent.
_WITH_VALUE = frozenset(
    {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
)


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
