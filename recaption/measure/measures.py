"""All that is measured of captions beside the gates' own rules, opened once a worker."""

from __future__ import annotations

from collections.abc import Mapping

from curate.store.dataset import Dataset
from recaption.measure.settings import MeasureSettings
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

    def __init__(
        self,
        settings: MeasureSettings,
        dataset: Dataset | None = None,
        device: str = "auto",
        prompt_columns: Mapping[str, str] | None = None,
    ) -> None:
        """Find and check everything; loads nothing large.

        Args:
            dataset: whose captions these will be. None: pictures have no embeddings and prompts no
                columns.
            device: where the text tower runs.
            prompt_columns: see PromptColumns.

        Raises:
            ConfigError: as for CaptionSimilarity, TokenCounter and PromptColumns.
        """
        self.similarity = CaptionSimilarity(settings, dataset, device)
        self.tokens = TokenCounter(settings.t5_tokenizer)
        self.prompt_columns = PromptColumns(prompt_columns or {}, dataset)

    def open(self) -> None:
        """Load the models.

        Raises:
            ConfigError: weights or vocabularies that do not load.
        """
        self.similarity.open()
        self.tokens.open()
