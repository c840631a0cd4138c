"""Settings of the scores."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.config import JsonDict

from curate.settings import Settings

_OPERATIONAL: JsonDict = {"identity": False}


class ScoreSettings(Settings):
    """Which models score the samples, and how they run."""

    clip_model: str = Field(
        "ViT-L-14-quickgelu",
        description="CLIP model: an open_clip name, hf-hub:ORG/NAME, local-dir:FOLDER, or a "
        "model config .json of your own.",
    )
    clip_pretrained: str | None = Field(
        "openai",
        description="Its weights: a pretrained tag or a .safetensors file; none for hf-hub: and "
        "local-dir: models, which bring their own.",
    )
    clip_tokenizer: str | None = Field(
        None, description="Folder with a tokenizer.json, in place of the model's own tokenizer."
    )
    aesthetic_head: str | None = Field(
        None, description="Aesthetic head (.safetensors) on this CLIP's image embedding."
    )
    nsfw_head: str | None = Field(
        None, description="NSFW head (.safetensors) on this CLIP's image embedding."
    )
    more_clips: dict[str, str] = Field(
        {},
        description="Further CLIP models side by side: LABEL -> MODEL@WEIGHTS, such as "
        "b32=ViT-B-32-quickgelu@openai; columns such as clip_similarity_b32.",
    )
    more_heads: dict[str, str] = Field(
        {},
        description="Further heads: COLUMN -> HEAD, or HEAD@LABEL on the embedding of one of the "
        "further CLIP models.",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Precision of CLIP's weights and activations."
    )
    jpeg_draft: bool = Field(
        True, description="Decode JPEGs at a reduced scale where every scorer still only shrinks."
    )
    device: str = Field(
        "auto",
        description='"cpu", "cuda" or "auto".',
        json_schema_extra=_OPERATIONAL,
    )
    score_batch_size: int = Field(
        64, ge=1, description="Samples a batch.", json_schema_extra=_OPERATIONAL
    )
    score_threads: int = Field(
        1, ge=1, description="Torch threads a worker.", json_schema_extra=_OPERATIONAL
    )
    decode_threads: int = Field(
        1,
        ge=1,
        description="Threads that decode pictures ahead of the model; 1 decodes in line.",
        json_schema_extra=_OPERATIONAL,
    )
