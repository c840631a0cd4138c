"""All that is measured of captions beside the gates' own rules, opened once a worker."""

from __future__ import annotations

from curate.dataset import Dataset
from recaption.prompt_columns import PromptColumns
from recaption.settings import RecaptionSettings
from recaption.similarity import CaptionSimilarity
from recaption.token_counts import TokenCounter


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
            ConfigError: as for CaptionSimilarity, TokenCounter and PromptColumns.
        """
        self.similarity = CaptionSimilarity(settings, dataset, settings.device)
        self.tokens = TokenCounter(settings.t5_tokenizer)
        self.prompt_columns = PromptColumns(settings.prompt_columns, dataset)

    def open(self) -> None:
        """Load the models.

        Raises:
            ConfigError: weights or vocabularies that do not load.
        """
        self.similarity.open()
        self.tokens.open()
