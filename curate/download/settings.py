"""Settings of the download stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from curate.base.settings import OPERATIONAL
from curate.pictures.settings import PictureSettings

if TYPE_CHECKING:
    from curate.download.hosts import HostLimits
    from curate.download.safe_http import HttpLimits


Engine = Literal["caplab", "img2dataset"]
# What an engine lacks may be asked of it in no other way than by default.
_LACKS: dict[Engine, tuple[str, ...]] = {
    "caplab": ("skip_reencode", "bbox_col", "extract_exif", "compute_hash"),
    "img2dataset": (
        "total_timeout",
        "host_connections",
        "host_interval",
        "host_budget",
        "contact",
        "respect_robots_txt",
        "proxy",
        "max_bytes",
    ),
}


class DownloadSettings(PictureSettings):
    """How pictures are fetched, and how they are stored."""

    GROUPS: ClassVar[dict[str, str]] = {"Download": "engine"}
    EXPERT: ClassVar[str] = (
        "skip_reencode bbox_col extract_exif compute_hash total_timeout host_interval "
        "host_budget respect_robots_headers verify_hashes"
    )

    engine: Engine = Field(
        "caplab",
        description="Who downloads and resizes: caplab, or img2dataset for a dataset that is made "
        "exactly as its datasets are.",
    )
    skip_reencode: bool = Field(
        False,
        description="img2dataset: store the file itself where it has the wanted format and size.",
    )
    bbox_col: str | None = Field(
        None,
        description="img2dataset: column of boxes to blur, each [left, top, right, bottom] in "
        "shares of the picture's sides.",
    )
    extract_exif: bool = Field(
        False, description="img2dataset: store the file's EXIF tags beside the picture."
    )
    compute_hash: Literal["md5", "sha256", "sha512"] | None = Field(
        "sha256", description="img2dataset: hash of the file beside the picture; md5, sha256, ..."
    )
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

    @model_validator(mode="after")
    def _ask_no_engine_for_what_it_lacks(self) -> Self:
        for name in _LACKS[self.engine]:
            value = getattr(self, name)
            if value != DownloadSettings.model_fields[name].default:
                raise ValueError(f"the engine {self.engine} has no {name}; leave it out")
        if self.engine == "caplab" and self.resize_mode == "border":
            raise ValueError("resize_mode border is img2dataset's: --engine img2dataset")
        lowest, highest = (0, 9) if self._is_png_of_img2dataset() else (1, 100)
        if not lowest <= self.encode_quality <= highest:
            raise ValueError(
                f"encode_quality of {self.encode_format} by {self.engine} is {lowest} to {highest}"
            )
        return self

    def _is_png_of_img2dataset(self) -> bool:
        return self.engine == "img2dataset" and self.encode_format == "png"

    def identity(self) -> dict[str, Any]:
        """As everywhere, but of an engine's own settings nothing where it is another's.

        Datasets that were made before there were two engines keep their identity so.
        """
        kept = super().identity()
        if self.engine == "caplab":
            for name in ("engine", *_LACKS["caplab"]):
                kept.pop(name, None)
        return kept

    def http_limits(self) -> HttpLimits:
        """The part that `SafeClient` needs."""
        from curate.download.safe_http import HttpLimits

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
        from curate.download.hosts import HostLimits

        return HostLimits(
            connections=self.host_connections,
            interval=self.host_interval,
            budget=self.host_budget,
        )
