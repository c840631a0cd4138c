"""Settings of the download stage."""

from __future__ import annotations

from pydantic import Field

from curate.resize import EncodeFormat, ResizeMode, Resizer
from curate.safe_http import HttpLimits
from curate.settings import Settings


class DownloadSettings(Settings):
    """How pictures are fetched and stored."""

    image_size: int = Field(512, ge=1, description="Pixels of the side that resize_mode names.")
    resize_mode: ResizeMode = Field(
        "keep_ratio_largest",
        description="keep_ratio_largest (longer side), keep_ratio (shorter side), center_crop "
        "(shorter side, then the centre square) or no.",
    )
    upscale: bool = Field(False, description="Enlarge pictures that are smaller than image_size.")
    encode_format: EncodeFormat = Field("jpg", description="Stored format: jpg, png or webp.")
    encode_quality: int = Field(95, ge=1, le=100, description="Quality of jpg and webp.")
    min_side: int = Field(
        0, ge=0, description="Pictures with a shorter side below this many pixels are not stored."
    )
    max_aspect: float | None = Field(
        None, ge=1, description="Longer side / shorter side above which a picture is not stored."
    )
    max_pixels: int = Field(
        64_000_000, ge=1, description="Width x height above which a picture is not decoded."
    )
    max_bytes: int = Field(
        20_000_000, ge=1, description="Bytes above which a file is not fetched any further."
    )
    timeout: float = Field(10.0, gt=0, description="Seconds that one connect or read may take.")
    total_timeout: float = Field(
        30.0, gt=0, description="Seconds that one URL may take with redirects and retries."
    )
    retries: int = Field(
        1, ge=0, description="Further tries of a URL after an error that may pass."
    )
    user_agent: str = Field(
        "CaptionLab", pattern=r"^[!-~]+$", description="Our name in the User-Agent header."
    )
    contact: str = Field(
        "",
        pattern=r"^[!-~]*$",
        description="URL or e-mail address in the User-Agent, where a site's owner reaches you.",
    )
    respect_robots_headers: list[str] = Field(
        ["noai", "noimageai", "noindex", "noimageindex", "noml"],
        description="X-Robots-Tag directives that forbid storing a picture.",
    )
    allow_private_addresses: bool = Field(
        False, description="Fetch from loopback and private addresses too (tests, intranets)."
    )
    threads: int = Field(
        32,
        ge=1,
        description="Downloads at a time in each worker.",
        json_schema_extra={"identity": False},
    )

    def http_limits(self) -> HttpLimits:
        """The part that `SafeOpener` needs."""
        agent = f"{self.user_agent} (+{self.contact})" if self.contact else self.user_agent
        return HttpLimits(
            timeout=self.timeout,
            total_timeout=self.total_timeout,
            max_bytes=self.max_bytes,
            retries=self.retries,
            user_agent=agent,
            disallowed_directives=frozenset(d.strip().lower() for d in self.respect_robots_headers),
            allow_private=self.allow_private_addresses,
        )

    def resizer(self) -> Resizer:
        """The resizer for these settings."""
        return Resizer(
            image_size=self.image_size,
            resize_mode=self.resize_mode,
            encode_format=self.encode_format,
            encode_quality=self.encode_quality,
            upscale=self.upscale,
            max_pixels=self.max_pixels,
            min_side=self.min_side,
            max_aspect=self.max_aspect,
        )
