"""From pictures and prompts to a model's inputs, ready on its device."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from curate.base.reasons import without_addresses
from recaption.engines.pictures import BrokenPictureError
from recaption.engines.protocol import BROKEN_PICTURE, NO_PICTURE, CaptionOutcome, CaptionRequest
from recaption.engines.transformers.picture_features import (
    Features,
    FeatureServer,
    Picture,
    PictureCache,
    load,
    serves_like,
)

NO_PICTURE_DETAIL = "this captioner has no chat template and cannot work on a text alone"


@dataclass
class Batch:
    """Rows that go through the model together, with what became of the others before it.

    Attributes:
        rows: numbers of the request's rows that `inputs` holds.
        inputs: for `model.generate`; None without rows, or where `failure` says why not.
        sizes: (width, height) of each row's picture as shown; None for a text alone.
        prompt_tokens: one a row, or None where the processor does not count pictures.
        lost: outcomes of rows that left.
    """

    rows: list[int]
    inputs: Any = None
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    prompt_tokens: list[int] | None = None
    lost: dict[int, CaptionOutcome] = field(default_factory=dict)
    failure: str | None = None


class Preparer:
    """Decodes, processes and tokenises. Threads may prepare different batches at once."""

    def __init__(
        self,
        processor: Any,
        device: torch.device,
        dtype: torch.dtype,
        image_size: int,
        picture_token: int | None,
        cache_bytes: int,
    ) -> None:
        """
        Args:
            dtype: of floating-point inputs.
            image_size: longest side in pixels that is shown; 0 shows the stored size.
            picture_token: the number of the token that stands for a part of a picture.
            cache_bytes: memory for processed pictures.
        """
        self._image_processor = processor.image_processor
        self._server = FeatureServer(self._image_processor)
        self._processor = copy.copy(processor)
        self._processor.image_processor = self._server
        self._tokenizer = processor.tokenizer
        self.chat = bool(getattr(processor, "chat_template", None))
        self._device, self._dtype = device, dtype
        self._image_size = image_size
        self._picture_token = picture_token
        self._control_tokens = sorted(
            {*self._tokenizer.all_special_tokens, *self._tokenizer.get_added_vocab()},
            key=len,
            reverse=True,
        )
        # Fast tokenizers refuse two threads at once, and the server serves one batch at a time.
        self._joining = threading.Lock()
        self._cache = PictureCache(cache_bytes)
        self._options: dict[str, Any] | None = None
        self._nested = False

    def process_alone(self, trial: CaptionRequest) -> bool:
        """From now on process pictures one by one where that gives the same features.

        To be called behind a first batch with a picture, which shows how its processor asks.

        Args:
            trial: a request with pictures.
        """
        if serves_like(self._server, self._image_processor):
            self._options, self._nested = dict(self._server.options), self._server.nested
            for _ in range(2):  # the second time out of the cache
                failed = self.batch(trial, range(len(trial))).failure
                if failed or self._server.missed:
                    self._options, self._cache = None, PictureCache(0)
                    break
        return self._options is not None

    def batch(self, request: CaptionRequest, rows: Sequence[int]) -> Batch:
        """Inputs of some rows, all with a picture or all without; rows that cannot be are lost."""
        batch = Batch(rows=[])
        pictures: list[Picture] = []
        for row in rows:
            encoded = request.pictures[row]
            if encoded is None:
                if self.chat:
                    batch.rows.append(row)
                else:
                    batch.lost[row] = CaptionOutcome(error=NO_PICTURE, detail=NO_PICTURE_DETAIL)
                continue
            try:
                pictures.append(self._picture(encoded))
                batch.rows.append(row)
            except BrokenPictureError as error:
                batch.lost[row] = CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
            except Exception as error:
                # Image processors refuse pictures in their own ways; alone it is this row's fault.
                batch.failure = words(error)
                batch.rows.append(row)
        if not batch.rows or batch.failure is not None:
            return batch
        batch.sizes = [p.size for p in pictures] if pictures else [None] * len(batch.rows)
        prompts = [request.prompts[row] for row in batch.rows]
        try:
            inputs = self._joined(pictures, prompts, request.system)
        except Exception as error:
            batch.failure = words(error)
            return batch
        batch.prompt_tokens = self._prompt_tokens(inputs)
        batch.inputs = inputs.to(self._device, self._dtype)
        return batch

    def _picture(self, encoded: bytes) -> Picture:
        found = self._cache.get(encoded)
        if found is None:
            found = load(
                encoded, self._image_size, self._image_processor, self._nested, self._options
            )
            if found.features is not None:
                found = Picture(found.image, _cast(found.features, self._dtype))
                self._cache.put(encoded, found)
        return found

    def _joined(self, pictures: list[Picture], prompts: list[str], system: str) -> Any:
        """Model inputs of a batch, on the CPU."""
        options: dict[str, Any] = {}
        texts: list[str] | None = prompts
        if self.chat:
            prompts = self._without_control_tokens(prompts)
            # Most rows share a prompt, so each distinct one is rendered once.
            rendered = {p: self._render_chat(p, system, bool(pictures)) for p in set(prompts)}
            texts = [rendered[prompt] for prompt in prompts]
            start = self._tokenizer.bos_token
            if start is not None and texts[0].startswith(start):
                options["add_special_tokens"] = False
        elif not any(prompts):
            texts = None
        if texts is not None:
            options.update(text=texts, padding=True)
        if pictures:
            images = [picture.image for picture in pictures]
            options["images"] = [[image] for image in images] if self.chat else images
        with self._joining:
            self._server.serve(pictures)
            return self._processor(return_tensors="pt", **options)

    def _render_chat(self, prompt: str, system: str, picture: bool) -> str:
        content = [{"type": "image"}] if picture else []
        turns = [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
        if system:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        text: str = self._processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False
        )
        return text

    def _without_control_tokens(self, prompts: list[str]) -> list[str]:
        # An alt text that spells "<image>" or "<|im_end|>" would become a real control token.
        for token in self._control_tokens:
            prompts = [p.replace(token, " ") if token in p else p for p in prompts]
        return prompts

    def _prompt_tokens(self, inputs: Any) -> list[int] | None:
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if ids is None or mask is None:
            return None
        if "pixel_values" in inputs and not bool((ids == self._picture_token).any()):
            return None
        counts: list[int] = mask.sum(1).tolist()
        return counts


def _cast(features: Features, dtype: torch.dtype) -> Features:
    """Floating-point features as the model takes them: less memory and traffic in bfloat16."""
    return {
        name: part.to(dtype) if torch.is_tensor(part) and part.is_floating_point() else part
        for name, part in features.items()
    }


def words(error: Exception) -> str:
    """An error in one line: its type and its first line."""
    lines = without_addresses(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
