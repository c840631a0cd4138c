"""Rows by host and by registered domain, counted once for every section that asks."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pipelines.report.sql import identifier

if TYPE_CHECKING:
    from pipelines.report.data import Inputs

# The authority of a URL without user name and port; what has none counts as "(no host)".
HOST_SQL = (
    "coalesce(nullif(lower(regexp_extract(url, "
    "'^[a-zA-Z][a-zA-Z0-9+.-]*://(?:[^/?#@]*@)?(\\[[^\\]]*\\]|[^/?#:]*)', 1)), ''), '(no host)')"
)
SCORES = ("clip_similarity", "aesthetic")
"""Scores whose means are told by domain, where they exist."""


def count_hosts(inputs: Inputs) -> None:
    """Make the table `_hosts`: host, domain, status, reason, n rows, and for each score of SCORES
    the sum over them and how many have it. One scan; its size grows with the hosts."""
    scored = [name for name in SCORES if name in inputs.columns("scores")]
    sums = "".join(
        f", sum({identifier(name)}) FILTER (isfinite({identifier(name)})) AS sum_{name}, "
        f"count({identifier(name)}) FILTER (isfinite({identifier(name)})) AS count_{name}"
        for name in scored
    )
    joined = (
        f" LEFT JOIN (SELECT key, {', '.join(scored)} FROM scores) USING (key)" if scored else ""
    )
    inputs.connection.execute(
        "CREATE TEMP TABLE _by_host AS SELECT host, status, reason, count(*) AS n"
        f"{sums} FROM (SELECT key, status, reason, {HOST_SQL} AS host FROM samples){joined} "
        "GROUP BY host, status, reason"
    )
    hosts = [row["host"] for row in inputs.rows("SELECT DISTINCT host FROM _by_host ORDER BY 1")]
    inputs.connection.execute("CREATE TEMP TABLE _domains (host VARCHAR, domain VARCHAR)")
    for start in range(0, len(hosts), 50_000):
        some = hosts[start : start + 50_000]
        inputs.connection.execute(
            "INSERT INTO _domains SELECT unnest($1), unnest($2)",
            [some, [registered_domain(host) for host in some]],
        )
    inputs.connection.execute(
        "CREATE TEMP TABLE _hosts AS SELECT * FROM _by_host JOIN _domains USING (host)"
    )


def registered_domain(host: str) -> str:
    """What somebody registered: "img2.shop.co.uk" -> "shop.co.uk"; an address stays as it is.

    By the Public Suffix List as tldextract ships it; nothing is fetched.
    """
    found: str = _extractor()(host).top_domain_under_public_suffix
    return found or host


@cache
def _extractor() -> Any:
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
