"""Settings of `caplab captioner fit`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from curate.base.errors import ConfigError
from curate.base.settings import OPERATIONAL, CaptionSources, Device, Precision, Settings
from recaption.prompts.templates import PromptTemplate, load_templates

NEW = "new"
ALT = "alt"
TOGETHER = "together"

# What a small model from nothing needs, and what a published one endures.
NEW_RATE, LOADED_RATE = 3e-3, 1e-5


class FitSettings(Settings):
    """How a captioner is made: its start, its pairs, its steps."""

    GROUPS: ClassVar[dict[str, str]] = {
        "Captions": "base",
        "Training": "pretrain",
        "Held-out pictures": "validation_share",
        "Shape of a new captioner": "image_side",
        "Running": "seed",
    }
    EXPERT: ClassVar[str] = (
        "caption_weight contrastive_weight muon_learning_rate weight_decay warmup_share "
        "gradient_clip image_side patch width vision_depth depth heads vocabulary resume_every"
    )

    base: str = Field(
        NEW,
        description="Captioner to start from: a folder, a hub id such as OWNER/NAME, or `new` for "
        "a small LLaVA with random weights and a tokenizer of its own.",
    )
    revision: str = Field("main", description="Hub branch, tag or commit of the base.")
    kinds: tuple[str, ...] = Field(
        ("short", "descriptive"),
        min_length=1,
        description="Kinds of caption to learn, each a prompt of `caplab recaption`. Every kind is "
        "a captioner of its own, fitted from the same start, as DALL-E 3's two were.",
    )
    together: bool = Field(
        False, description="One captioner for all kinds in place of one each; it is told by prompt."
    )
    prompts: str = Field("", description="YAML file with prompt templates of your own, by kind.")
    selection: str = Field("", description="Selection, where the pairs are a dataset.")
    caption_sources: CaptionSources = Field(
        {},
        description="Kind -> who wrote it, where several captioners wrote that kind; a+b takes "
        "b's for pictures that have none by a.",
    )

    pretrain: str = Field(
        "",
        description="Noisy (image, alt text) pairs that a new captioner learns from first: dataset "
        "directory, folder, JSONL or Parquet with the kind `alt`.",
    )
    pretrain_epochs: float = Field(
        4.0, gt=0, description="Times that pre-training sees every alt text."
    )
    caption_weight: float = Field(
        2.0, ge=0, description="Of the language-modelling loss in pre-training (CoCa: 2)."
    )
    contrastive_weight: float = Field(
        1.0, ge=0, description="Of the contrastive loss in pre-training (CoCa: 1); 0 leaves it out."
    )

    epochs: float = Field(3.0, gt=0, description="Times that a fine-tune sees every pair.")
    batch_size: int = Field(16, ge=1, description="Pairs a forward pass.")
    accumulate: int = Field(
        1, ge=1, description="Forward passes a step; their gradients add up to one large batch's."
    )
    optimizer: Literal["auto", "adamw", "muon"] = Field(
        "auto",
        description="muon: torch.optim.Muon for hidden matrices, AdamW for the rest; auto: muon "
        "for a new captioner, adamw for a loaded one.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        description=f"Of AdamW, at its peak; by default {NEW_RATE:g} for a new captioner and "
        f"{LOADED_RATE:g} for a loaded one.",
    )
    muon_learning_rate: float = Field(0.015, gt=0, description="Of Muon, at its peak.")
    weight_decay: float = Field(
        0.01, ge=0, description="Of matrices; pulls the weights towards 0 against overfitting."
    )
    warmup_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the steps over which the rate rises; then a cosine."
    )
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of a step's gradient.")
    freeze_vision: bool = Field(
        False, description="Leave the vision tower as it is; saves memory and forgetting."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice to hold fewer of them: large models."
    )
    augment: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Strength of changes that keep a caption true: up to 6% shift, 8% zoom, 20% "
        "brightness and contrast. Pictures are never mirrored, since captions say left and right.",
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of attention weights dropped, of a new captioner."
    )

    validation_share: float = Field(
        0.05, gt=0, lt=1, description="Share of the pictures held out, chosen by their hash."
    )
    validations: int = Field(
        20, ge=1, description="Times that the held-out loss is measured in each training."
    )
    keep: Literal["best", "last"] = Field(
        "best", description="Weights to keep: of the lowest held-out loss, or the last ones."
    )
    patience: int = Field(
        0, ge=0, description="Stop after so many measurements without a lower loss; 0 never stops."
    )
    checkpoints: tuple[float, ...] = Field(
        (),
        description="Shares of a fine-tune after which the captioner so far is kept as a folder, "
        "such as 0.05,0.15,0.4,1.0: worse captioners, to measure what quality does.",
    )
    max_caption_tokens: int = Field(
        256, ge=1, description="Longer captions are refused: cut ones would never learn to end."
    )
    image_size: int = Field(
        512, ge=0, description="Longest side in pixels that the captioner is shown; 0: as stored."
    )

    image_side: int = Field(32, ge=4, description="Pixels a side of a new captioner's input.")
    patch: int = Field(8, ge=1, description="Pixels a side of a new captioner's image tokens.")
    width: int = Field(128, ge=8, description="Width of a new captioner.")
    vision_depth: int = Field(3, ge=1, description="Layers of a new captioner's vision tower.")
    depth: int = Field(4, ge=1, description="Layers of a new captioner's language model.")
    heads: int = Field(4, ge=1, description="Attention heads of both.")
    vocabulary: int = Field(
        2000, ge=300, description="Tokens of a new captioner's byte-level tokenizer, at most."
    )

    seed: int = Field(0, ge=0, description="Of initial weights, order and changes of pictures.")
    precision: Precision = Field(
        "auto",
        description="Of the computation (weights stay float32): fp32 or bf16; auto: bf16 on a GPU.",
    )
    device: Device = Field(
        "auto", description="cpu, cuda, cuda:1; auto: a GPU if any.", json_schema_extra=OPERATIONAL
    )
    threads: int = Field(
        0, ge=0, description="CPU threads; 0: torch's choice.", json_schema_extra=OPERATIONAL
    )
    resume_every: int = Field(
        200,
        ge=1,
        description="Steps between two states that a killed run continues from.",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("precision")
    @classmethod
    def _without_loss_scaling(cls, precision: Precision) -> Precision:
        if precision == "fp16":
            raise ValueError("gradients in fp16 need loss scaling, which is not there; use bf16")
        return precision

    @field_validator("kinds")
    @classmethod
    def _distinct(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(kinds)) != len(kinds):
            raise ValueError("a kind stands there twice")
        if ALT in kinds or TOGETHER in kinds:
            raise ValueError(f"{ALT!r} and {TOGETHER!r} are no kinds that a captioner is fitted to")
        return kinds

    @field_validator("checkpoints")
    @classmethod
    def _shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in shares):
            raise ValueError("shares of a training lie above 0 and at 1 at most")
        return tuple(sorted(set(shares)))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pretrain and self.base != NEW:
            raise ConfigError("pretrain goes with base = 'new'; a loaded base is pre-trained.")
        if not self.caption_weight and not self.contrastive_weight:
            raise ConfigError("caption_weight and contrastive_weight cannot both be 0.")
        if self.image_side % self.patch:
            raise ConfigError(f"image_side must be a multiple of patch ({self.patch}).")
        if self.width % (2 * self.heads):
            raise ConfigError(f"width must be a multiple of twice the heads ({2 * self.heads}).")
        return self

    @property
    def is_new(self) -> bool:
        """Whether the captioner begins with random weights."""
        return self.base == NEW

    @property
    def rate(self) -> float:
        """AdamW's peak learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return NEW_RATE if self.is_new else LOADED_RATE

    @property
    def uses_muon(self) -> bool:
        """Whether hidden matrices are stepped by Muon."""
        return self.optimizer == "muon" or (self.optimizer == "auto" and self.is_new)

    def templates(self) -> dict[str, PromptTemplate]:
        """What the captioner is asked for each kind, as `caplab recaption` asks it.

        Raises:
            ConfigError: a kind without a prompt, or a prompt that needs the alt text.
        """
        known = load_templates(self.prompts)
        for kind in self.kinds:
            if kind not in known:
                raise ConfigError(
                    f"There is no prompt for captions of kind {kind!r}; write one into a file and "
                    f"name it with --prompts."
                )
            if "{alt_text}" in known[kind].text:
                raise ConfigError(f"The prompt for {kind!r} shows the alt text, which pairs lack.")
        return {kind: known[kind] for kind in self.kinds}
