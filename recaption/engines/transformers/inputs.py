"""From pictures and prompts to a model's inputs, on the host."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from recaption.engines.batches import Batch, ControlTokens, words
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
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self.chat = bool(getattr(processor, "chat_template", None))
        self._dtype = dtype
        self._image_size = image_size
        self._picture_token = picture_token
        self._control_tokens = ControlTokens(self._tokenizer)
        # Fast tokenizers refuse two threads at once. Decoding, which costs more, needs no lock.
        self._joining = threading.Lock()

    def batch(self, request: CaptionRequest, rows: Sequence[int]) -> Batch:
        """Inputs of some rows, all with a picture or all without; rows that cannot be are lost."""
        texts_alone = "" if self.chat else NO_PICTURE_DETAIL
        batch = Batch.decoded(request, rows, self._image_size, texts_alone)
        if not batch.rows:
            return batch
        prompts = [request.prompts[row] for row in batch.rows]
        images = batch.images if batch.images[0] is not None else []
        try:
            inputs = self._joined(images, prompts, request.system)
        except Exception as error:
            # Image processors refuse pictures in their own ways; alone it is that row's fault.
            batch.failure = words(error)
            return batch
        batch.images = []
        batch.prompt_tokens = self._prompt_tokens(inputs)
        batch.inputs = inputs.to(self._dtype)
        return batch

    def _joined(self, images: list[Any], prompts: list[str], system: str) -> Any:
        """Model inputs of a batch, on the CPU."""
        options: dict[str, Any] = {}
        texts: list[str] | None = prompts
        with self._joining:
            if self.chat:
                # Most rows share a prompt, so each distinct one is rendered once.
                rendered = {p: self._render_chat(p, system, bool(images)) for p in set(prompts)}
                texts = [rendered[prompt] for prompt in prompts]
                start = self._tokenizer.bos_token
                if start is not None and texts[0].startswith(start):
                    options["add_special_tokens"] = False
            elif not any(prompts):
                texts = None
            if texts is not None:
                options.update(text=texts, padding=True)
            if images:
                options["images"] = [[image] for image in images] if self.chat else images
            return self._processor(return_tensors="pt", **options)

    def _render_chat(self, prompt: str, system: str, picture: bool) -> str:
        content = [{"type": "image"}] if picture else []
        spoken = {"type": "text", "text": self._control_tokens.out_of(prompt)}
        turns = [{"role": "user", "content": [*content, spoken]}]
        if system:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        text: str = self._processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False
        )
        return text

    def _prompt_tokens(self, inputs: Any) -> list[int] | None:
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None or mask is None:
            return None
        if "pixel_values" in inputs and not bool((ids == self._picture_token).any()):
            return None
        counts: list[int] = mask.sum(1).tolist()
        return counts
