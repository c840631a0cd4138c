"""Which captioner, and how it is run: what serving and up-sampling share with recaptioning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from curate.settings import Settings, load_settings
from recaption.server import (
    OmittableField,
    TokenLimitField,
    check_address,
    check_extra_body,
    check_key_name,
)
from recaption.settings import OPERATIONAL, RecaptionSettings


class EngineSettings(Settings):
    """A captioner and its engine; every field means what it means for `caplab recaption`."""

    captioner: str = Field(
        description="Folder with a transformers model, a hub id such as OWNER/NAME, or the base "
        "URL of an OpenAI-compatible server such as http://localhost:8000/v1.",
    )
    engine: str = Field(
        "auto", description="What runs the captioner; auto: http for a URL, else transformers."
    )
    revision: str = Field("main", description="Hub branch, tag or commit of the captioner.")
    served_model: str = Field(
        "", description="Model name on the server; empty takes the only one it serves."
    )
    api_key_env: str = Field(
        "",
        description="NAME of the environment variable that holds the server's key; the key "
        "itself is never stored.",
    )
    token_limit_field: TokenLimitField = Field(
        "max_tokens",
        description="What the server calls the limit of output tokens; some take only the second.",
        json_schema_extra=OPERATIONAL,
    )
    omit_fields: tuple[OmittableField, ...] = Field(
        (), description="Sampling fields that the server refuses and that are never sent."
    )
    extra_body: dict[str, Any] = Field(
        {}, description="Further fields of every request to a server; stored, so never a key."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of a transformers model; auto: bfloat16 on a GPU, float32 on a CPU."
    )
    device: str = Field(
        "auto", description="cpu, cuda, cuda:1; auto: a GPU if any.", json_schema_extra=OPERATIONAL
    )
    batch_size: int = Field(
        32, ge=1, description="Rows a forward pass.", json_schema_extra=OPERATIONAL
    )
    in_flight: int = Field(
        64, ge=1, description="Requests in flight to a server.", json_schema_extra=OPERATIONAL
    )
    timeout: float = Field(
        120.0, gt=0, description="Seconds a request may take.", json_schema_extra=OPERATIONAL
    )
    request_attempts: int = Field(
        6,
        ge=1,
        description="Tries of one request where the server is broken.",
        json_schema_extra=OPERATIONAL,
    )
    patience: float = Field(
        600.0,
        ge=0,
        description="Seconds that a row waits for a server that is busy (429) or gone.",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("captioner")
    @classmethod
    def _no_secret_in_address(cls, captioner: str) -> str:
        if not captioner.strip():
            raise ValueError("name a folder, a hub id or a server's URL")
        if captioner.startswith(("http://", "https://")):
            check_address(captioner)
        return captioner

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, name: str) -> str:
        check_key_name(name)
        return name

    @field_validator("extra_body")
    @classmethod
    def _sendable(cls, extra_body: dict[str, Any]) -> dict[str, Any]:
        check_extra_body(extra_body)
        return extra_body

    def recaption_settings(self, **more: Any) -> RecaptionSettings:
        """These settings, and `more`, as the functions that open an engine take them.

        Raises:
            ConfigError: there is no such engine.
        """
        shared = {name: getattr(self, name) for name in EngineSettings.model_fields}
        return load_settings(RecaptionSettings, None, {**shared, **more})
