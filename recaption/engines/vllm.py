"""Captions by vLLM in this process, which batches rows of its own accord.

vLLM pins its own torch, another than this project's constraints name, so it lives in an
environment of its own, where Caption Lab is installed without them; see docs/engines.md. Where that
is too much, `vllm serve` and the http engine do the same over the OpenAI protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from curate.base.errors import ConfigError
from curate.base.reasons import words
from curate.base.settings import Precision
from curate.scoring.models.chat import NO_THINKING, ControlTokens
from recaption.engines.batches import (
    Batch,
    caption_in_batches,
    consecutive,
    threads_of,
)
from recaption.engines.identity import Captioner
from recaption.engines.pictures import encode
from recaption.engines.protocol import ENGINE_ERROR, CaptionOutcome, CaptionRequest, Sampling
from recaption.engines.settings import EngineSettings, Shown, ShownSettings

# Rows handed over at once, as a multiple of the rows that vLLM runs side by side: many, so that few
# places stand empty at the end of a part; not all, because decoded pictures lie in memory.
_DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_PART = 8


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
        self._threads = threads_of(threads)
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
            raise ConfigError(f"vLLM cannot load {folder} ({words(error)}).") from error
        self._control_tokens = ControlTokens(self._llm.get_tokenizer())
        grey = encode(Image.new("RGB", (64, 64), (128, 128, 128)), "png")
        outcome = self.caption(CaptionRequest([grey], ["Describe this."], [0], Sampling(2)))[0]
        if outcome.error is not None:
            raise ConfigError(f"vLLM loaded {folder} but cannot caption ({outcome.detail}).")

    @classmethod
    def opened(
        cls, settings: EngineSettings, captioner: Captioner, trial: Sampling, shown: Shown
    ) -> VllmEngine:
        """See recaption.engines.registry."""
        shown = shown or ShownSettings()
        return cls(
            captioner.folder(),
            revision=captioner.revision,
            precision=settings.precision,
            batch_size=settings.batch_size,
            image_size=shown.image_size,
            threads=settings.prepare_threads,
        )

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine. Pictures of the next part are decoded while one is captioned.

        Raises:
            vllm's EngineDeadError: the engine is gone; the process has to be replaced.
        """
        return caption_in_batches(
            consecutive(range(len(request)), self._part),
            lambda rows: self._prepare(request, rows),
            lambda part: self._write(request, part),
            self._threads,
            lambda error: type(error).__name__ == "EngineDeadError",
        )

    def _prepare(self, request: CaptionRequest, rows: Sequence[int]) -> Batch:
        """A part whose inputs are chats."""
        part = Batch.decoded(request, rows, self._image_size)
        part.inputs = []
        for row, image in zip(part.rows, part.images, strict=True):
            text = self._control_tokens.out_of(request.prompts[row])
            content: list[dict[str, Any]] = [{"type": "text", "text": text}]
            if image is not None:
                content.insert(0, {"type": "image_pil", "image_pil": image})
            chat: list[dict[str, Any]] = [{"role": "user", "content": content}]
            if request.system:
                chat.insert(0, {"role": "system", "content": request.system})
            part.inputs.append(chat)
        return part

    def _write(self, request: CaptionRequest, part: Batch) -> list[CaptionOutcome]:
        sampling = [self._sampling(request.sampling, request.seeds[row]) for row in part.rows]
        answers = self._llm.chat(
            part.inputs, sampling, use_tqdm=False, chat_template_kwargs=NO_THINKING
        )
        return [_outcome(answer, size) for answer, size in zip(answers, part.sizes, strict=True)]

    def _sampling(self, sampling: Sampling, seed: int) -> Any:
        return self._parameters(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or -1,  # -1 keeps all words in every version
            repetition_penalty=sampling.repetition_penalty,
            seed=seed,
        )


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
