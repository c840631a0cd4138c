"""Settings of the scores."""

from __future__ import annotations

from pydantic import Field

from curate.base.settings import OPERATIONAL, Device, Precision, Settings


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
        description="Further CLIP models side by side: LABEL -> MODEL@WEIGHTS, such as "
        "b32=ViT-B-32-quickgelu@openai; columns such as clip_similarity_b32.",
    )
    more_heads: dict[str, str] = Field(
        {},
        description="Further heads: COLUMN -> HEAD, or HEAD@LABEL on the embedding of one of the "
        "further CLIP models.",
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
