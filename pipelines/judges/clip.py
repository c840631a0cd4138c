"""CLIP similarity of picture and text: as a whole, sentence by sentence, and how much was cut.

CLIP reads 77 tokens and a descriptive prompt has 100 to 300, so the similarity as a whole judges
the prompt's beginning; the mean over its sentences reads all of it. The cosine is that of CLIPScore
(Hessel et al. 2021, arXiv:2104.08718), without its factor of 2.5 and its cut at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.base.settings import OPERATIONAL, Precision, Settings
from pipelines.judges.asked import READ_LIMIT, Against, texts_of
from pipelines.judges.protocol import Judge, Pictures

if TYPE_CHECKING:
    import pyarrow as pa


class ClipOptions(Settings):
    """Which CLIP model, and what it compares a picture with."""

    model: str = Field(
        "ViT-L-14-quickgelu",
        description="An open_clip name, config .json, hf-hub:ORG/NAME or local-dir:FOLDER.",
    )
    pretrained: str | None = Field(
        "openai",
        description="Tag or .safetensors file of its weights; none where the model brings its own.",
    )
    against: Against = Field(
        "intent", description="intent (where it is a text, else the prompt) or prompt."
    )
    precision: Precision = Field("fp32", description="Of weights and activations.")
    batch_size: int = Field(
        64, ge=1, description="Pictures a forward pass.", json_schema_extra=OPERATIONAL
    )


class ClipJudge(Judge):
    """Cosine of picture and text under any model of open_clip."""

    Options = ClipOptions
    options: ClipOptions
    metrics = ("clip_similarity", "clip_similarity_sentences", "clip_text_cut")
    limits = (
        "CLIP similarity hardly sees counts, relations, or which attribute belongs to which "
        "object; a difference in it is one of topic and style first.",
        "Text behind the model's context (77 tokens for most) is not read by clip_similarity; "
        "clip_text_cut says how much that is.",
        READ_LIMIT,
    )

    def __init__(self, options: ClipOptions, device: str) -> None:
        from curate.scoring.scorers.clip import Clip

        super().__init__(options, device)
        self.clip = Clip(
            options.model, options.pretrained, precision=options.precision, device=device
        )
        self.clip.open()

    def identity(self) -> dict[str, Any]:
        return self.clip.signature()

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        from curate.scoring.captions import caption_scores

        model = self.clip.model
        texts = texts_of(asked, self.options.against)
        images = model.embed_pictures(pictures, self.options.batch_size)
        whole, behind, _, sentences, *_ = caption_scores(self.clip, images, texts)
        left_out = np.asarray(behind, np.float64)
        cut = np.where(np.isnan(whole), np.nan, left_out / (left_out + model.context_length))
        return {
            "clip_similarity": np.asarray(whole, np.float64),
            "clip_similarity_sentences": np.asarray(sentences, np.float64),
            "clip_text_cut": cut,
        }
