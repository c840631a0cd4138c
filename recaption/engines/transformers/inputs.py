"""From pictures and prompts to a model's inputs, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from curate.base.reasons import words
from curate.scoring.models.chat import ModelInputs
from recaption.engines.batches import Batch
from recaption.engines.protocol import CaptionRequest

NO_PICTURE_DETAIL = "this captioner has no chat template and cannot work on a text alone"


class Preparer:
    """Decodes, processes and tokenises. Threads may prepare different batches at once."""

    def __init__(
        self,
        processor: Any,
        dtype: torch.dtype,
        image_size: int,
        picture_token: int | None,
    ) -> None:
        """
        Args:
            dtype: of floating-point inputs.
            image_size: longest side in pixels that is shown; 0 shows the stored size.
            picture_token: the number of the token that stands for a part of a picture.
        """
        self._inputs = ModelInputs(processor)
        self.chat = self._inputs.chat
        self._dtype = dtype
        self._image_size = image_size
        self._picture_token = picture_token

    def batch(self, request: CaptionRequest, rows: Sequence[int]) -> Batch:
        """Inputs of some rows, all with a picture or all without; rows that cannot be are lost."""
        texts_alone = "" if self.chat else NO_PICTURE_DETAIL
        batch = Batch.decoded(request, rows, self._image_size, texts_alone)
        if not batch.rows:
            return batch
        prompts = [request.prompts[row] for row in batch.rows]
        images = batch.images if batch.images[0] is not None else []
        try:
            inputs = self._inputs(images, prompts, request.system)
        except Exception as error:
            # Image processors refuse pictures in their own ways; alone it is that row's fault.
            batch.failure = words(error)
            return batch
        batch.images = []
        batch.prompt_tokens = self._prompt_tokens(inputs)
        batch.inputs = inputs.to(self._dtype)
        return batch

    def _prompt_tokens(self, inputs: Any) -> list[int] | None:
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None or mask is None:
            return None
        if "pixel_values" in inputs and not bool((ids == self._picture_token).any()):
            return None
        counts: list[int] = mask.sum(1).tolist()
        return counts
