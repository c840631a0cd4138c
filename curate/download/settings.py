"""Settings of the download stage."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from curate.download.hosts import HostLimits
from curate.download.safe_http import HttpLimits
from curate.pictures.settings import PictureSettings

OPERATIONAL: dict[str, Any] = {"identity": False}


class DownloadSettings(PictureSettings):
    """How pictures are fetched, and how they are stored."""

    timeout: float = Field(
        10.0,
        gt=0,
        description="Seconds that one connect or read may take.",
        json_schema_extra=OPERATIONAL,
    )
    total_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds that one URL may take with redirects and retries, waiting apart.",
        json_schema_extra=OPERATIONAL,
    )
    retries: int = Field(
        2,
        ge=0,
        description="Further tries of a URL after an error that may pass, with growing pauses.",
        json_schema_extra=OPERATIONAL,
    )
    host_connections: int = Field(
        16,
        ge=1,
        description="Requests under way to one host, in each worker.",
        json_schema_extra=OPERATIONAL,
    )
    host_interval: float = Field(
        0.0,
        ge=0,
        description="Seconds between the beginnings of two requests to one host, in each worker.",
        json_schema_extra=OPERATIONAL,
    )
    host_budget: float = Field(
        120.0,
        gt=0,
        description="Seconds of connection time that a worker may lose to one host by failed "
        "tries, pauses (Retry-After too) and slow answers; then its other URLs fail at once.",
        json_schema_extra=OPERATIONAL,
    )
    user_agent: str = Field(
        "CaptionLab",
        pattern=r"^[!-~]+$",
        description="Our name in the User-Agent header; robots rules are read for it.",
    )
    contact: str = Field(
        "https://github.com/caption-lab/caption-lab",
        pattern=r"^[!-~]*$",
        description="URL or e-mail address in the User-Agent, where a site's owner reaches you; "
        "set it to your own.",
        json_schema_extra=OPERATIONAL,
    )
    respect_robots_headers: list[str] = Field(
        ["noai", "noimageai", "noindex", "noimageindex", "noml"],
        description="X-Robots-Tag directives that forbid storing a picture.",
    )
    respect_robots_txt: bool = Field(
        False,
        description="Ask each site's robots.txt before fetching from it, and keep its Crawl-delay.",
    )
    verify_hashes: bool = Field(
        True, description="Refuse a file that differs from the list's md5, sha256 or sha512 column."
    )
    allow_private_addresses: bool = Field(
        False, description="Fetch from loopback and private addresses too (tests, intranets)."
    )
    proxy: str | None = Field(
        None,
        description="http://HOST:PORT of a proxy for all requests; it then resolves the names, so "
        "it must keep requests out of private networks.",
        json_schema_extra=OPERATIONAL,
    )
    threads: int = Field(
        64, ge=1, description="Downloads at a time in each worker.", json_schema_extra=OPERATIONAL
    )

    def http_limits(self) -> HttpLimits:
        """The part that `SafeClient` needs."""
        agent = f"{self.user_agent} (+{self.contact})" if self.contact else self.user_agent
        return HttpLimits(
            timeout=self.timeout,
            total_timeout=self.total_timeout,
            max_bytes=self.max_bytes,
            user_agent=agent,
            disallowed_directives=frozenset(d.strip().lower() for d in self.respect_robots_headers),
            allow_private=self.allow_private_addresses,
            proxy=self.proxy,
        )

    def host_limits(self) -> HostLimits:
        """The part that `Hosts` needs."""
        return HostLimits(
            connections=self.host_connections,
            interval=self.host_interval,
            budget=self.host_budget,
        )
