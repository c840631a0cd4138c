"""Settings of `caplab serve-captioner`."""

from __future__ import annotations

from pydantic import Field, field_validator

from recaption.engines.http.address import check_key_name
from recaption.engines.settings import OPERATIONAL, EngineSettings


class ServeSettings(EngineSettings):
    """A captioner and how it is served."""

    name: str = Field("", description="Model name for clients; empty takes the captioner's own.")
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on; 0.0.0.0 for every network that reaches the machine.",
        json_schema_extra=OPERATIONAL,
    )
    port: int = Field(
        8000, ge=0, le=65535, description="0 takes a free one.", json_schema_extra=OPERATIONAL
    )
    client_key_env: str = Field(
        "",
        description="NAME of the environment variable with the key that clients have to send; "
        "empty asks for none.",
    )
    max_wait_ms: float = Field(
        20.0,
        ge=0,
        description="Milliseconds that a request waits for others to share its batch.",
        json_schema_extra=OPERATIONAL,
    )
    max_waiting: int = Field(
        256,
        ge=1,
        description="Requests that may wait; further ones are answered with 429.",
        json_schema_extra=OPERATIONAL,
    )
    max_tokens: int = Field(1024, ge=1, description="Output tokens that a request may ask for.")
    max_body_mib: float = Field(16.0, gt=0, description="Size of a request, picture included.")
    image_size: int = Field(
        0,
        ge=0,
        description="Longest side in pixels that the captioner is shown; 0 shows what comes.",
    )
    allow_urls: bool = Field(
        False,
        description="Fetch pictures that clients name by http address, from public networks only.",
    )
    stop_seconds: float = Field(
        60.0,
        ge=0,
        description="How long requests may take to end after SIGTERM.",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("client_key_env")
    @classmethod
    def _a_name_too(cls, name: str) -> str:
        check_key_name(name)
        return name
