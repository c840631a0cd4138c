"""All that is measured of captions beside the gates' own rules, opened once a worker."""

from __future__ import annotations

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from recaption.captioning.settings import RecaptionSettings
from recaption.measure.similarity import CaptionSimilarity
from recaption.measure.token_counts import TokenCounter
from recaption.prompts.columns import PromptColumns


class CaptionMeasures:
    """The parts that need a model, a vocabulary or the dataset; picklable before `open`.

    Attributes:
        similarity: of captions and pictures by CLIP.
        tokens: of CLIP's and T5's vocabularies.
        prompt_columns: values of prompt variables out of the dataset.
    """

    def __init__(self, settings: RecaptionSettings, dataset: Dataset | None = None) -> None:
        """Find and check everything; loads nothing large.

        Args:
            dataset: whose captions these will be. None: pictures have no embeddings and prompts no
                columns.

        Raises:
            ConfigError: as for CaptionSimilarity, TokenCounter and PromptColumns; or captions below
                their alt text are to be rejected and nothing would compare them.
        """
        self.similarity = CaptionSimilarity(settings, dataset, settings.device)
        if "below_alt_text" in settings.reject and self.similarity.clip is None:
            raise ConfigError(
                "reject names below_alt_text, but no captions are compared with their pictures: "
                "the dataset needs picture embeddings of the CLIP model, and clip_gate must not be "
                "off."
            )
        self.tokens = TokenCounter(settings.t5_tokenizer)
        self.prompt_columns = PromptColumns(settings.prompt_columns, dataset)

    def open(self) -> None:
        """Load the models.

        Raises:
            ConfigError: weights or vocabularies that do not load.
        """
        self.similarity.open()
        self.tokens.open()
