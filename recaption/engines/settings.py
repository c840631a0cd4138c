"""Which captioner, and how it is run: shared by recaptioning, serving and up-sampling."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from curate.base.settings import OPERATIONAL, Device, Precision, Settings
from curate.served.address import (
    OmittableField,
    TokenLimitField,
    check_address,
    check_extra_body,
    check_key_name,
)

PictureFormat = Literal["jpeg", "png"]
"""In which a picture is sent to a server."""

EngineName = Literal["auto", "transformers", "http", "coca", "vllm"]


class EngineSettings(Settings):
    """A captioner and its engine."""

    GROUPS: ClassVar[dict[str, str]] = {"Captioner": "captioner", "Running": "precision"}
    EXPERT: ClassVar[str] = (
        "revision token_limit_field omit_fields extra_body prepare_threads request_attempts "
        "patience"
    )

    captioner: str = Field(
        description="Folder with a transformers model, a hub id such as OWNER/NAME, the base URL "
        "of an OpenAI-compatible server such as http://localhost:8000/v1, or a CoCa of open_clip: "
        "hf-hub:OWNER/NAME, local-dir:FOLDER, or a name such as coca_ViT-L-14 with `pretrained`. "
        "One of your own is my_package.module:Class, or the name of an entry point.",
    )
    engine: EngineName = Field(
        "auto",
        description="What runs the captioner. transformers: in this process. http: a server. coca: "
        "open_clip, kind short only. vllm: vLLM in this process, in an environment of its own. "
        "auto: http for a URL, coca for open_clip's models, else transformers.",
    )
    pretrained: str = Field(
        "",
        description="Weights of a CoCa that is given by open_clip's name: one of its tags, or a "
        ".safetensors file.",
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
        (),
        description="Sampling fields that the server refuses and that are never sent, such as "
        "seed; the captions table records what was asked for all the same.",
    )
    extra_body: dict[str, Any] = Field(
        {},
        description="Further fields of every request to a server, such as reasoning_effort=low; "
        "stored with the settings, so never a key.",
    )
    precision: Precision = Field(
        "auto", description="Of a model in this process; auto: bf16 on a GPU, fp32 on a CPU."
    )
    device: Device = Field(
        "auto", description="cpu, cuda, cuda:1; auto: a GPU if any.", json_schema_extra=OPERATIONAL
    )
    batch_size: int = Field(
        32,
        ge=1,
        description="Rows a forward pass of a model in this process.",
        json_schema_extra=OPERATIONAL,
    )
    prepare_threads: int = Field(
        0,
        ge=0,
        description="Threads that make pictures ready while the model generates; 0: one a CPU, 8 "
        "at most.",
        json_schema_extra=OPERATIONAL,
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
        description="Tries of one request where the server is busy, broken or gone.",
        json_schema_extra=OPERATIONAL,
    )
    patience: float = Field(
        600.0,
        ge=0,
        description="Seconds that a caption waits for a server that says it is busy (429).",
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


class ShownSettings(Settings):
    """What of a picture a captioner is shown, and how far it searches for words."""

    GROUPS: ClassVar[dict[str, str]] = {"What the captioner is shown": "beams"}
    EXPERT: ClassVar[str] = "beams image_format"

    beams: int = Field(
        1,
        ge=1,
        le=16,
        description="Texts that a CoCa follows at once where the temperature is 0; 1 is greedy.",
    )
    image_size: int = Field(
        512,
        ge=0,
        description="Longest side in pixels that the captioner is shown; 0 shows the stored size.",
    )
    image_format: PictureFormat = Field(
        "jpeg", description="Format in which a server is sent pictures."
    )


Shown = ShownSettings | None
"""None where no picture is shown: texts alone are asked for."""
