"""Captions by a transformers model in this process: batched, left-padded, one outcome a row.

Any model that `AutoModelForImageTextToText` knows, from safetensors. Models with a chat template
get system and user turns; models without one get their prompt as it is (see recaption.prompts).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from curate.errors import ConfigError
from recaption.engine import (
    BROKEN_PICTURE,
    ENGINE_ERROR,
    NO_PICTURE,
    CaptionOutcome,
    CaptionRequest,
    FinishReason,
    Sampling,
)
from recaption.pictures import BrokenPictureError, decode, encode
from recaption.prompts import NATIVE, SHORT
from recaption.seeded_sampling import SeededSampler

logger = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass
class _Batch:
    """Rows that go through the model together, with what became of them before it."""

    rows: list[int]
    inputs: Any = None
    sizes: list[tuple[int, int]] = field(default_factory=list)
    failure: str | None = None


class TransformersEngine:
    """A captioner in this process; see CaptionEngine."""

    name = "transformers"

    def __init__(
        self,
        folder: Path | str,
        revision: str = "",
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 32,
        image_size: int = 0,
    ) -> None:
        """Load model and processor and caption one grey picture, so that faults show here.

        Args:
            folder: config, safetensors, tokenizer and processor, as `save_pretrained` writes.
            revision: recorded with the captions.
            device: "auto" takes the GPU if there is one.
            precision: "auto" is bfloat16 on a GPU and float32 on the CPU.
            batch_size: pictures a forward pass; no effect on the captions.
            image_size: longest side in pixels shown to the captioner; 0 shows the stored size.

        Raises:
            ConfigError: the folder holds no captioner that transformers can load and run.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.revision = revision
        self.device = torch.device(_device(device))
        self._batch_size = batch_size
        self._image_size = image_size
        try:
            self._processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            self._model = AutoModelForImageTextToText.from_pretrained(
                folder,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=_dtype(precision, self.device),
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
            raise ConfigError(
                f"{folder} cannot be loaded as a captioner ({_first_line(error)})."
            ) from error
        self._model.eval().to(self.device)
        self._tokenizer = self._processor.tokenizer
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        if not self._model.config.is_encoder_decoder:
            # Generation continues at the right end, so padding has to stand at the left.
            self._tokenizer.padding_side = "left"
        self._chat = bool(getattr(self._processor, "chat_template", None))
        self._control_tokens = sorted(
            {*self._tokenizer.all_special_tokens, *self._tokenizer.get_added_vocab()},
            key=len,
            reverse=True,
        )
        self._end_tokens = torch.tensor(self._end_token_ids(), device=self.device)
        self._forget_sampling_defaults()
        self._probe()

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine. The next batch is decoded and tokenised while this one generates."""
        outcomes: dict[int, CaptionOutcome] = {}
        # Prompts of like length share a batch, so that little padding is computed.
        order = sorted(range(len(request)), key=lambda row: len(request.prompts[row]))
        parts = [order[i : i + self._batch_size] for i in range(0, len(order), self._batch_size)]
        with ThreadPoolExecutor(1, thread_name_prefix="prepare") as pool:
            ahead = pool.submit(self._prepare, request, parts[0], outcomes) if parts else None
            for following in [*parts[1:], None]:
                if ahead is None:
                    break
                batch = ahead.result()
                ahead = (
                    pool.submit(self._prepare, request, following, outcomes)
                    if following is not None
                    else None
                )
                self._finish(request, batch, outcomes)
        return [outcomes[row] for row in range(len(request))]

    # ---- one batch ----------------------------------------------------------------------------

    def _prepare(
        self, request: CaptionRequest, rows: Sequence[int], outcomes: dict[int, CaptionOutcome]
    ) -> _Batch:
        """Decode and tokenise rows; broken pictures get their outcome and leave the batch."""
        batch = _Batch(rows=[])
        images: list[Image.Image] = []
        for row in rows:
            picture = request.pictures[row]
            if picture is None:
                outcomes[row] = CaptionOutcome(error=NO_PICTURE)
                continue
            try:
                images.append(decode(picture, self._image_size))
                batch.rows.append(row)
            except BrokenPictureError as error:
                outcomes[row] = CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
        batch.sizes = [image.size for image in images]
        if batch.rows:
            prompts = [request.prompts[row] for row in batch.rows]
            try:
                batch.inputs = self._inputs(images, prompts, request.system)
            except Exception as error:
                batch.failure = _words(error)
        return batch

    def _finish(
        self, request: CaptionRequest, batch: _Batch, outcomes: dict[int, CaptionOutcome]
    ) -> None:
        """Caption a prepared batch; where it fails, halve it until the bad rows stand alone.

        Halving also finds a batch that fits where memory ran out; later requests begin with it.

        Raises:
            torch.AcceleratorError: the device itself failed; the process has to be replaced.
        """
        if not batch.rows:
            return
        failure = batch.failure
        if failure is None:
            seeds = [request.seeds[row] for row in batch.rows]
            try:
                written = self._generate(batch.inputs, seeds, request.sampling)
            except torch.AcceleratorError:
                raise
            except Exception as error:
                # Words only: the error itself would hold on to the memory that ran out.
                failure = _words(error)
                if isinstance(error, torch.OutOfMemoryError):
                    self._batch_size = max(1, len(batch.rows) // 2)
            else:
                for row, size, (text, finish, tokens) in zip(
                    batch.rows, batch.sizes, written, strict=True
                ):
                    outcomes[row] = CaptionOutcome(
                        text=text,
                        finish_reason=finish,
                        output_tokens=tokens,
                        sent_width=size[0],
                        sent_height=size[1],
                    )
                return
        batch.inputs = None
        if len(batch.rows) == 1:
            logger.warning("a row could not be captioned: %s", failure)
            outcomes[batch.rows[0]] = CaptionOutcome(error=ENGINE_ERROR, detail=failure)
            return
        middle = len(batch.rows) // 2
        for half in (batch.rows[:middle], batch.rows[middle:]):
            self._finish(request, self._prepare(request, half, outcomes), outcomes)

    def _inputs(self, images: list[Image.Image], prompts: list[str], system: str) -> Any:
        """Model inputs of a batch, on the device."""
        prompts = self._without_control_tokens(prompts)
        options: dict[str, Any] = {}
        texts: list[str] | None = prompts
        if self._chat:
            # Most rows share a prompt, so each distinct one is rendered once.
            rendered = {prompt: self._render_chat(prompt, system) for prompt in set(prompts)}
            texts = [rendered[prompt] for prompt in prompts]
            start = self._tokenizer.bos_token
            if start is not None and texts[0].startswith(start):
                options["add_special_tokens"] = False
        elif not any(prompts):
            texts = None
        if texts is not None:
            options.update(text=texts, padding=True)
        pictures = [[image] for image in images] if self._chat else images
        inputs = self._processor(images=pictures, return_tensors="pt", **options)
        return inputs.to(self.device, self._model.dtype)

    def _render_chat(self, prompt: str, system: str) -> str:
        user = {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": prompt}],
        }
        turns = [user]
        if system:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        text: str = self._processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=False
        )
        return text

    def _without_control_tokens(self, prompts: list[str]) -> list[str]:
        # An alt text that spells "<image>" or "<|im_end|>" would become a real control token.
        if self._chat:
            for token in self._control_tokens:
                prompts = [p.replace(token, " ") if token in p else p for p in prompts]
        return prompts

    @torch.inference_mode()
    def _generate(
        self, inputs: Any, seeds: list[int], sampling: Sampling
    ) -> list[tuple[str, FinishReason, int]]:
        """(text, finish reason, output tokens) of each row."""
        options: dict[str, Any] = {
            "max_new_tokens": sampling.max_new_tokens,
            "do_sample": False,
            "num_beams": 1,
        }
        if sampling.repetition_penalty != 1.0:
            options["repetition_penalty"] = sampling.repetition_penalty
        if sampling.temperature > 0:
            columns = torch.tensor(seeds, dtype=torch.int64, device=self.device)
            options["logits_processor"] = [SeededSampler(columns, sampling)]
        written = self._model.generate(**inputs, **options)
        prompt = inputs.get("input_ids")
        # Decoder-only models give the prompt back in front, all others their start token.
        echoed = prompt is not None and torch.equal(written[:, : prompt.shape[1]], prompt)
        written = written[:, prompt.shape[1] if echoed else 1 :]
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        is_end = torch.isin(written, self._end_tokens)
        ended = is_end.any(1)
        lengths = torch.where(ended, is_end.int().argmax(1) + 1, written.shape[1]).tolist()
        return [
            (text.strip(), "stop" if stopped else "length", length)
            for text, stopped, length in zip(texts, ended.tolist(), lengths, strict=True)
        ]

    # ---- set-up -------------------------------------------------------------------------------

    def _end_token_ids(self) -> list[int]:
        """Every token that ends a text: the generation config's and, for BLIP, the separator."""
        text_config = self._model.config.get_text_config()
        found: set[int] = set()
        for ids in (
            self._model.generation_config.eos_token_id,
            self._tokenizer.eos_token_id,
            getattr(text_config, "sep_token_id", None),
        ):
            found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
        return sorted(found)

    def _forget_sampling_defaults(self) -> None:
        # Many checkpoints ship temperature, top-p or a repetition penalty of their own; what is
        # recorded with a caption must be all that shaped it.
        self._model.generation_config.update(
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=None,
            max_length=None,
        )

    def _probe(self) -> None:
        grey = encode(Image.new("RGB", (64, 64), (128, 128, 128)), "png")
        family = self._model.config.model_type
        template = SHORT if self._chat else NATIVE.get(family, {}).get("short", SHORT)
        prompt = template.render([None])[0]
        request = CaptionRequest([grey], [prompt], [0], Sampling(max_new_tokens=2))
        outcome = self.caption(request)[0]
        if outcome.error is not None:
            raise ConfigError(
                f"The captioner was loaded but cannot caption a grey picture ({outcome.detail})."
            )


def _device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device = {device!r}, but torch finds no GPU; use device = 'cpu'.")
    return device


def _dtype(precision: Precision, device: torch.device) -> torch.dtype:
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
