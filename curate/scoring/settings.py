"""Settings of the scores."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from curate.base.settings import EACH, OPERATIONAL, Device, Precision, Settings
from curate.scoring.clip_presets import resolved_label, with_preset
from curate.served.address import check_address, check_extra_body, check_key_name


class ScoreSettings(Settings):
    """Which models score the samples, and how they run."""

    GROUPS: ClassVar[dict[str, str]] = {"Scores": "clip_model", "Running": "precision"}
    EXPERT: ClassVar[str] = (
        "clip_tokenizer ask_extra_body nsfw_labels watermark_labels allow_pickle jpeg_draft "
        "score_batch_size score_threads decode_threads"
    )

    clip_model: str = Field(
        "ViT-L-14-quickgelu",
        description="CLIP model: a short name (siglip2-so400m-384, dfn5b-h14, metaclip2-h14, "
        "pe-core-l14-336; all in docs/scores.md), an open_clip name, hf-hub:ORG/NAME, "
        "local-dir:FOLDER, or a model config .json of your own.",
    )
    clip_pretrained: str | None = Field(
        "openai",
        description="Its weights: a pretrained tag or a .safetensors file; none for hf-hub: and "
        "local-dir: models, which bring their own. A short name stands for both.",
    )
    clip_tokenizer: str | None = Field(
        None, description="Folder with a tokenizer.json, in place of the model's own tokenizer."
    )
    aesthetic_head: str | None = Field(
        None,
        description="Aesthetic head on this CLIP's image embedding: laion-aesthetic-v2 or another "
        "published name, hf-hub:ORG/NAME/FILE, URL#sha256=HEX, or a file.",
    )
    nsfw_head: str | None = Field(
        None,
        description="NSFW head on this CLIP's image embedding: laion-nsfw-l14 or another published "
        "name, hf-hub:ORG/NAME/FILE, URL#sha256=HEX, or a file.",
    )
    more_clips: dict[str, str] = Field(
        {},
        description="Further CLIP models side by side: LABEL -> MODEL@WEIGHTS or a short name, as "
        "in b32=ViT-B-32-quickgelu@openai; columns such as clip_similarity_b32.",
    )
    more_heads: dict[str, str] = Field(
        {},
        description="Further heads: COLUMN -> HEAD, or HEAD@LABEL on the embedding of one of the "
        "further CLIP models.",
    )
    classifier: dict[str, str] = Field(
        {},
        description="Image classifiers of transformers: COLUMN=MODEL@LABEL, the probability of a "
        "label, or of several as LABEL+LABEL; MODEL is hf-hub:ORG/NAME, hf-hub:ORG/NAME@REVISION "
        "or a folder. Once for each column.",
        json_schema_extra=EACH,
    )
    ask: dict[str, str] = Field(
        {},
        description='Questions to a vision-language model, COLUMN="Is there a logo?": the '
        "probability that it answers yes. Once for each column.",
        json_schema_extra=EACH,
    )
    ask_model: str | None = Field(
        None,
        description="Who answers: hf-hub:ORG/NAME, hf-hub:ORG/NAME@REVISION, a folder, or the base "
        "URL of an OpenAI-compatible server that gives log-probabilities (http://HOST:8000/v1).",
    )
    ask_served_model: str = Field(
        "", description="Its name on that server; empty takes the only one."
    )
    ask_api_key_env: str = Field(
        "",
        description="NAME of the environment variable with the server's key.",
        json_schema_extra=OPERATIONAL,
    )
    ask_extra_body: dict[str, Any] = Field(
        {},
        description="Further fields of every request to that server, such as "
        "chat_template_kwargs={enable_thinking: false}; stored, so never a key.",
    )
    ask_precision: Precision = Field(
        "auto", description="Of a model in this process; auto: bf16 on a GPU, fp32 on a CPU."
    )
    text_area: str | None = Field(
        None,
        description="Text detector of transformers for the column text_area, the share of the "
        "picture that is text: hf-hub:PaddlePaddle/PP-OCRv5_mobile_det_safetensors, another of its "
        "kind, or an object detector as MODEL@LABEL.",
    )
    face_area: str | None = Field(
        None,
        description="Object detector of transformers for the columns face_area, the share of the "
        "picture that is faces, and face_area_largest: hf-hub:ORG/NAME@LABEL or FOLDER@LABEL.",
    )
    nsfw_classifier: str | None = Field(
        None,
        description="Image classifier of transformers for the column nsfw_classifier: "
        "hf-hub:ORG/NAME@REVISION or a folder.",
    )
    nsfw_labels: tuple[str, ...] = Field(
        ("nsfw",), description="Its labels that mean unsafe; their probabilities are added up."
    )
    watermark_model: str | None = Field(
        None,
        description="Watermark detector: LAION's (laion-watermark#sha256=HEX, or a file of it), or "
        "an image classifier of transformers (hf-hub:ORG/NAME@REVISION, or a folder).",
    )
    watermark_labels: tuple[str, ...] = Field(
        ("watermark",), description="Labels of such a classifier that mean a watermark."
    )
    word_list: str | None = Field(
        None,
        description="Your own list of words, one a line: adds text_has_listed_words.",
    )
    scorers: tuple[str, ...] = Field(
        (),
        description="Scorers of your own, each as module:Class or by an entry point's name; see "
        "docs/scores.md.",
    )
    allow_pickle: tuple[str, ...] = Field(
        (),
        description="Pickles that you trust, by file name or sha256; each is converted once. "
        "No other pickle is ever loaded.",
        json_schema_extra=OPERATIONAL,
    )

    precision: Precision = Field(
        "fp32",
        description="Precision of CLIP's weights and activations; auto: bf16 on a GPU, else fp32.",
    )
    jpeg_draft: bool = Field(
        True, description="Decode JPEGs at a reduced scale where every scorer still only shrinks."
    )
    device: Device = Field(
        "auto",
        description="cpu, cuda, cuda:1; auto: a GPU if any.",
        json_schema_extra=OPERATIONAL,
    )
    score_batch_size: int = Field(
        64, ge=1, description="Samples a batch.", json_schema_extra=OPERATIONAL
    )
    score_threads: int = Field(
        1,
        ge=1,
        description="Batches scored side by side in each worker, each on one CPU thread.",
        json_schema_extra=OPERATIONAL,
    )
    decode_threads: int = Field(
        1,
        ge=1,
        description="Threads that decode pictures ahead of the model, for a model on a GPU; with 1 "
        "each scoring thread decodes its own.",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="before")
    @classmethod
    def _short_name(cls, given: Any) -> Any:
        return with_preset(given)

    @field_validator("more_clips")
    @classmethod
    def _short_names(cls, given: dict[str, str]) -> dict[str, str]:
        return {label: resolved_label(source) for label, source in given.items()}

    @field_validator("ask_model")
    @classmethod
    def _no_secret_in_address(cls, model: str | None) -> str | None:
        if model is not None and model.startswith(("http://", "https://")):
            check_address(model)
        return model

    @field_validator("ask_extra_body")
    @classmethod
    def _sendable(cls, extra_body: dict[str, Any]) -> dict[str, Any]:
        check_extra_body(extra_body)
        return extra_body

    @field_validator("ask_api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, name: str) -> str:
        check_key_name(name)
        return name
