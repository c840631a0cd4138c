"""Captions by vLLM in this process, which batches rows of its own accord.

vLLM pins its own torch, another than this project's constraints name, so it lives in an
environment of its own, where Caption Lab is installed without them; see docs/engines.md. Where that
is too much, `vllm serve` and the http engine do the same over the OpenAI protocol.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from curate.base.errors import ConfigError
from curate.base.reasons import without_addresses
from curate.base.settings import Precision
from curate.base.threads import in_threads
from recaption.engines.pictures import BrokenPictureError, decode, encode
from recaption.engines.protocol import (
    BROKEN_PICTURE,
    ENGINE_ERROR,
    CaptionOutcome,
    CaptionRequest,
    Sampling,
)

logger = logging.getLogger(__name__)

# Rows handed over at once, as a multiple of the rows that vLLM runs side by side: many, so that few
# places stand empty at the end of a part; not all, because decoded pictures lie in memory.
_DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_PART = 8


@dataclass
class _Part:
    """Rows on their way to vLLM: their chats, and outcomes of rows that never get there."""

    rows: list[int] = field(default_factory=list)
    chats: list[list[dict[str, Any]]] = field(default_factory=list)
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    lost: dict[int, CaptionOutcome] = field(default_factory=dict)


class VllmEngine:
    """A chat model in vLLM's offline engine; see CaptionEngine."""

    name = "vllm"

    def __init__(
        self,
        folder: Path | str,
        revision: str = "",
        precision: Precision = "auto",
        batch_size: int = 32,
        image_size: int = 0,
        threads: int = 0,
        options: dict[str, Any] | None = None,
    ) -> None:
        """Load the model and caption a grey picture, so that faults show here.

        Args:
            folder: config, safetensors, tokenizer and processor of a model with a chat template.
            revision: recorded with the captions.
            precision: "auto" is the checkpoint's own.
            batch_size: rows that run side by side at most (vLLM's max_num_seqs).
            image_size: longest side in pixels shown to the captioner; 0 shows the stored size.
            threads: that decode pictures ahead; 0 takes as many as CPUs, at most 8.
            options: further arguments of vllm.LLM, such as gpu_memory_utilization.

        Raises:
            ConfigError: vLLM is not installed, or cannot load or run the model.
        """
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise ConfigError(
                f"engine = 'vllm' needs the package vllm, which is not here ({error}); install "
                f"Caption Lab into an environment with it (docs/engines.md), or start `vllm serve` "
                f"and give its URL as captioner."
            ) from error
        self.revision = revision
        self._parameters = SamplingParams
        self._part = _PART * batch_size
        self._image_size = image_size
        self._threads = threads or min(8, os.cpu_count() or 1)
        try:
            self._llm = LLM(
                str(folder),
                trust_remote_code=False,
                load_format="safetensors",
                dtype=_DTYPES[precision],
                max_num_seqs=batch_size,
                limit_mm_per_prompt={"image": 1},
                seed=0,
                **(options or {}),
            )
        except Exception as error:  # vLLM's start-up raises almost any type
            raise ConfigError(f"vLLM cannot load {folder} ({_first_line(error)}).") from error
        tokenizer = self._llm.get_tokenizer()
        self._control_tokens = sorted(
            {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True
        )
        grey = encode(Image.new("RGB", (64, 64), (128, 128, 128)), "png")
        outcome = self.caption(CaptionRequest([grey], ["Describe this."], [0], Sampling(2)))[0]
        if outcome.error is not None:
            raise ConfigError(f"vLLM loaded {folder} but cannot caption ({outcome.detail}).")

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine. Pictures of the next part are decoded while one is captioned.

        Raises:
            vllm's EngineDeadError: the engine is gone; the process has to be replaced.
        """
        started = time.perf_counter()
        outcomes: dict[int, CaptionOutcome] = {}
        count = len(request)
        parts = [range(n, min(n + self._part, count)) for n in range(0, count, self._part)]
        prepared = in_threads(lambda rows: self._prepare(request, rows), parts, self._threads)
        for part in prepared:
            outcomes |= part.lost
            self._caption_part(request, part, outcomes)
        share = (time.perf_counter() - started) / max(1, count)
        return [
            outcome if outcome.text is None else replace(outcome, latency_seconds=share)
            for outcome in (outcomes[row] for row in range(count))
        ]

    def _prepare(self, request: CaptionRequest, rows: Sequence[int]) -> _Part:
        part = _Part()
        for row in rows:
            encoded = request.pictures[row]
            content: list[dict[str, Any]] = []
            size = None
            if encoded is not None:
                try:
                    image = decode(encoded, self._image_size)
                except BrokenPictureError as error:
                    part.lost[row] = CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
                    continue
                content.append({"type": "image_pil", "image_pil": image})
                size = image.size
            text = self._without_control_tokens(request.prompts[row])
            content.append({"type": "text", "text": text})
            chat = [{"role": "user", "content": content}]
            if request.system:
                chat.insert(0, {"role": "system", "content": request.system})
            part.rows.append(row)
            part.chats.append(chat)
            part.sizes.append(size)
        return part

    def _caption_part(
        self, request: CaptionRequest, part: _Part, outcomes: dict[int, CaptionOutcome]
    ) -> None:
        """Caption a part; where vLLM refuses it, halve it until the bad rows stand alone."""
        if not part.rows:
            return
        sampling = [self._sampling(request.sampling, request.seeds[row]) for row in part.rows]
        try:
            answers = self._llm.chat(part.chats, sampling, use_tqdm=False)
        except Exception as error:
            if type(error).__name__ == "EngineDeadError":
                raise
            # One prompt that vLLM's processor refuses fails the whole call.
            failure = f"{type(error).__name__}: {_first_line(error)}"
        else:
            for row, size, answer in zip(part.rows, part.sizes, answers, strict=True):
                outcomes[row] = _outcome(answer, size)
            return
        if len(part.rows) == 1:
            logger.warning("a row could not be captioned: %s", failure)
            outcomes[part.rows[0]] = CaptionOutcome(error=ENGINE_ERROR, detail=failure)
            return
        middle = len(part.rows) // 2
        for half in (slice(None, middle), slice(middle, None)):
            some = _Part(part.rows[half], part.chats[half], part.sizes[half])
            self._caption_part(request, some, outcomes)

    def _sampling(self, sampling: Sampling, seed: int) -> Any:
        return self._parameters(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,  # -1 keeps all words in every version
            repetition_penalty=sampling.repetition_penalty,
            seed=seed,
        )

    def _without_control_tokens(self, prompt: str) -> str:
        # An alt text that spells "<image>" or "<|im_end|>" would become a real control token.
        for token in self._control_tokens:
            prompt = prompt.replace(token, " ")
        return prompt


def _outcome(answer: Any, size: tuple[int, int] | None) -> CaptionOutcome:
    """The outcome of one of vLLM's RequestOutputs."""
    written = answer.outputs[0] if answer.outputs else None
    if written is None or written.finish_reason not in ("stop", "length"):
        reason = written.finish_reason if written else "no output"
        return CaptionOutcome(error=ENGINE_ERROR, detail=f"vLLM ended the row with {reason!r}")
    return CaptionOutcome(
        text=written.text.strip(),
        finish_reason=written.finish_reason,
        prompt_tokens=len(answer.prompt_token_ids or []) or None,
        output_tokens=len(written.token_ids),
        sent_width=size[0] if size else None,
        sent_height=size[1] if size else None,
    )


def _first_line(error: Exception) -> str:
    lines = without_addresses(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
