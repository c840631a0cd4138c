"""The limits that the transformers engine is measured against: `model.generate`, used by hand.

bare     the model's generate on tensors that lie in memory, at the best batch size of a sweep:
         nothing is read, decoded, tokenised or stored, so no loop can be faster with it
inline   the loop that a script would have: read, decode, process, generate, decode the words,
         one after the other, at the same batch size
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaption.engines.pictures import decode
from recaption.engines.protocol import Sampling


@dataclass(frozen=True)
class BareSpeeds:
    """Pictures a second of generate alone, and CPU seconds a picture, by batch size."""

    by_batch_size: dict[int, float]
    cpu_by_batch_size: dict[int, float]

    @property
    def batch_size(self) -> int:
        """The fastest batch size."""
        return max(self.by_batch_size, key=lambda size: self.by_batch_size[size])

    @property
    def best(self) -> float:
        """Pictures a second at the fastest batch size."""
        return self.by_batch_size[self.batch_size]


class BareModel:
    """A captioner with a chat template, as transformers' own examples use it."""

    def __init__(self, folder: Path, device: str, dtype: str, prompt: str, tokens: int) -> None:
        """
        Args:
            tokens: new tokens a picture.
        """
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._processor = AutoProcessor.from_pretrained(folder)
        self._processor.tokenizer.padding_side = "left"
        self._model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        )
        self._model.eval().to(device)
        turns = [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": prompt}],
            }
        ]
        self._text = self._processor.apply_chat_template(turns, add_generation_prompt=True)
        self._tokens = tokens

    def inputs(self, pictures: Sequence[bytes], image_size: int) -> Any:
        """Tensors of a batch of encoded pictures, on the device."""
        images = [[decode(picture, image_size)] for picture in pictures]
        inputs = self._processor(
            images=images, text=[self._text] * len(images), return_tensors="pt", padding=True
        )
        return inputs.to(self._model.device, self._model.dtype)

    def generate(self, inputs: Any, sampling: Sampling) -> Any:
        """(B, prompt + new) token numbers, all rows of the same length."""
        import torch

        with torch.inference_mode():
            return self._model.generate(
                **inputs,
                max_new_tokens=sampling.max_new_tokens,
                do_sample=sampling.temperature > 0,
                pad_token_id=0,
            )

    def sweep(
        self, pictures: Sequence[bytes], image_size: int, sizes: Sequence[int], rounds: int = 2
    ) -> BareSpeeds:
        """Speed at each batch size that memory holds; the best of `rounds` tries each."""
        import torch

        sampling = Sampling(self._tokens)
        speeds: dict[int, float] = {}
        cpu: dict[int, float] = {}
        for size in sizes:
            try:
                inputs = self.inputs(_repeated(pictures, size), image_size)
                if not speeds:
                    self.generate(inputs, sampling)  # warm
                for _ in range(rounds):
                    started, cpu_started = time.perf_counter(), time.process_time()
                    written = self.generate(inputs, sampling)
                    wait(written)
                    speed = size / (time.perf_counter() - started)
                    speeds[size] = max(speeds.get(size, 0.0), speed)
                    used = (time.process_time() - cpu_started) / size
                    cpu[size] = min(cpu.get(size, used), used)
            except torch.OutOfMemoryError:
                break
        return BareSpeeds(speeds, cpu)

    def inline(self, pictures: Sequence[bytes], image_size: int, batch_size: int) -> float:
        """Pictures a second of the loop that does one thing after the other."""
        sampling = Sampling(self._tokens)
        started = time.perf_counter()
        for start in range(0, len(pictures), batch_size):
            inputs = self.inputs(pictures[start : start + batch_size], image_size)
            written = self.generate(inputs, sampling)
            self._processor.batch_decode(written, skip_special_tokens=True)
        return len(pictures) / (time.perf_counter() - started)


def wait(tensor: Any) -> None:
    """Until the device has finished what makes `tensor`."""
    if tensor.device.type == "cuda":
        import torch

        torch.cuda.synchronize(tensor.device)


def _repeated(pictures: Sequence[bytes], count: int) -> list[bytes]:
    return [pictures[number % len(pictures)] for number in range(count)]
