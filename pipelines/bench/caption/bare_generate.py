"""The limits that the transformers engine is measured against: `model.generate`, used by hand.

bare     the model's generate on tensors that lie in memory, at the best batch size of a sweep:
         nothing is read, decoded, tokenised or stored, so no loop can be faster with it
inline   the loop that a script would have: read, decode, process, generate, decode the words,
         one after the other, at the same batch size
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipelines.bench.common.devices import finish
from pipelines.bench.common.packed_pictures import repeated
from recaption.engines.pictures import decode


class Speed(NamedTuple):
    """Of generate alone at one batch size."""

    rate: float
    """Pictures a second."""
    cpu_seconds: float
    """A picture."""


class BareModel:
    """A captioner with a chat template, as transformers' own examples use it."""

    def __init__(
        self, folder: Path, device: str, dtype: str, prompt: str, tokens: int, image_size: int
    ) -> None:
        """
        Args:
            tokens: new tokens a picture.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._processor = AutoProcessor.from_pretrained(folder)
        self._processor.tokenizer.padding_side = "left"
        self._model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        )
        self._model.eval().to(device)
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        turns = [{"role": "user", "content": content}]
        self._text = self._processor.apply_chat_template(turns, add_generation_prompt=True)
        self._tokens, self._image_size = tokens, image_size

    def sweep(
        self, pictures: Sequence[bytes], sizes: Sequence[int], rounds: int = 2
    ) -> dict[int, Speed]:
        """Speed at each batch size that memory holds; the best of `rounds` tries each."""
        speeds: dict[int, Speed] = {}
        for size in sizes:
            try:
                inputs = self._inputs(repeated(pictures, size))
                if not speeds:
                    self._generate(inputs)  # warm
                tries = []
                for _ in range(rounds):
                    started, cpu = time.perf_counter(), time.process_time()
                    self._generate(inputs)
                    finish(self._model.device)
                    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
                    tries.append(Speed(size / seconds, cpu / size))
                best = max(one.rate for one in tries)
                speeds[size] = Speed(best, min(one.cpu_seconds for one in tries))
            except torch.OutOfMemoryError:
                break
        return speeds

    def inline(self, pictures: Sequence[bytes], batch_size: int) -> float:
        """Pictures a second of the loop that does one thing after the other."""
        started = time.perf_counter()
        for start in range(0, len(pictures), batch_size):
            written = self._generate(self._inputs(pictures[start : start + batch_size]))
            self._processor.batch_decode(written, skip_special_tokens=True)
        return len(pictures) / (time.perf_counter() - started)

    def _inputs(self, pictures: Sequence[bytes]) -> Any:
        """Tensors of a batch of encoded pictures, on the device."""
        images = [[decode(picture, self._image_size)] for picture in pictures]
        texts = [self._text] * len(images)
        inputs = self._processor(images=images, text=texts, return_tensors="pt", padding=True)
        return inputs.to(self._model.device, self._model.dtype)

    @torch.inference_mode()
    def _generate(self, inputs: Any) -> Any:
        """(B, prompt + new) token numbers, all rows of the same length."""
        return self._model.generate(
            **inputs, max_new_tokens=self._tokens, do_sample=False, pad_token_id=0
        )
