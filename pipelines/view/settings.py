"""Settings of `caplab view`."""

from __future__ import annotations

from pydantic import Field

from curate.base.settings import OPERATIONAL, Settings

PORT, NEXT = 8765, 20


class ViewSettings(Settings):
    """Where the page is served, and for whom."""

    port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description=f"port of the page; 0 takes a free one; without it {PORT}, or one of the "
        f"{NEXT} behind it where that is taken",
        json_schema_extra=OPERATIONAL,
    )
    host: str = Field(
        "127.0.0.1",
        description="address to listen on; one that others reach needs --allow-remote",
        json_schema_extra=OPERATIONAL,
    )
    open: bool = Field(
        False, description="open the page in the browser", json_schema_extra=OPERATIONAL
    )
    allow_remote: bool = Field(
        False,
        description="let other machines look and write: there is no password",
        json_schema_extra=OPERATIONAL,
    )
    by: str | None = Field(
        None,
        max_length=60,
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="who looks, such as anna: whose captions the marks are (human-anna)",
        json_schema_extra=OPERATIONAL,
    )
