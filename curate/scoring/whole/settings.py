"""Settings of scores that compare a sample with others."""

from __future__ import annotations

from pydantic import Field, field_validator

from curate.base.settings import Settings

MODEL = "model"


class WholeSettings(Settings):
    """Scores of a sample among others, from stored embeddings; no picture is opened."""

    neg_clip_loss: str | None = Field(
        None,
        description="Add neg_clip_loss (the similarity less what other pictures and texts share of "
        "it), at this temperature: model reads it from the CLIP weights; 0.01 is that of OpenAI's.",
    )
    neg_clip_batch: int = Field(
        32768, ge=2, description="Samples that each one is compared with at a time."
    )
    neg_clip_divisions: int = Field(
        10, ge=1, description="How often; the normalisation is the mean."
    )
    norm_sim: dict[str, str] = Field(
        {},
        description="Likeness to target pictures: NAME -> a scored dataset, or a .npy or Parquet "
        "file of embeddings of this CLIP model; columns norm_sim_2_NAME and norm_sim_inf_NAME.",
    )

    @field_validator("neg_clip_loss")
    @classmethod
    def _a_temperature(cls, given: str | None) -> str | None:
        if given in (None, MODEL):
            return given
        try:
            temperature = float(given or "")
        except ValueError:
            temperature = 0.0
        if not 0 < temperature <= 10:
            raise ValueError("say model, or a temperature such as 0.01")
        return given
