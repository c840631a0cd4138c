"""Captions by a transformers model in this process: `generate` over left-padded batches.

Any model that `AutoModelForImageTextToText` knows, from safetensors. Models with a chat template
get system and user turns; models without one get their prompt as it is (see
recaption.prompts.templates). Where captions differ much in length, vLLM is faster: `generate`
holds a batch until its longest text ends.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.settings import Precision, device_of, dtype_of, precision_of
from curate.scoring.models.chat import end_token_ids, load_captioner, picture_token
from recaption.engines.batches import Batch, caption_in_batches, consecutive, threads_of
from recaption.engines.identity import Captioner
from recaption.engines.pictures import encode, shown_pixels
from recaption.engines.protocol import CaptionOutcome, CaptionRequest, Sampling
from recaption.engines.sampling import SeededProcessor
from recaption.engines.settings import EngineSettings, Shown, ShownSettings
from recaption.engines.transformers.inputs import Preparer
from recaption.prompts.templates import NATIVE, SHORT

_PROBE_SIZES = ((64, 64), (160, 128))


class TransformersEngine:
    """A captioner in this process; see CaptionEngine.

    Threads may call `caption` at once: one request's batch generates while others are prepared.
    """

    name = "transformers"

    def __init__(
        self,
        folder: Path | str,
        revision: str = "",
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 32,
        image_size: int = 0,
        threads: int = 0,
        sees: bool = True,
    ) -> None:
        """Load model and processor and caption grey pictures, so that faults show here.

        Args:
            folder: config, safetensors, tokenizer and processor, as `save_pretrained` writes.
            revision: recorded with the captions.
            device: "auto" takes the GPU if there is one.
            precision: "auto" is bf16 on a GPU and fp32 on the CPU.
            batch_size: rows a forward pass; no effect on the captions.
            image_size: longest side in pixels shown to the captioner; 0 shows the stored size.
            threads: that prepare pictures while the model generates; 0 takes as many as CPUs, at
                most 8.

            sees: whether pictures will be shown; without, a language model will do.

        Raises:
            ConfigError: the folder holds no captioner that transformers can load and run.
        """
        self.revision = revision
        self.device = torch.device(device_of(device))
        self._batch_size = batch_size
        self._image_size = image_size
        self._threads = threads_of(threads) + 1  # with one thread nothing would run ahead
        dtype = dtype_of(precision_of(precision, str(self.device)))
        processor, self._model = load_captioner(folder, dtype, self.device, not sees)
        # A tokenizer of its own: the other one works in threads, which it refuses to share.
        self._reader = copy.deepcopy(processor.tokenizer)
        self._end_tokens = torch.tensor(
            end_token_ids(self._model, processor.tokenizer), device=self.device
        )
        self._preparer = Preparer(
            processor, self._model.dtype, image_size, picture_token(self._model.config)
        )
        self._generating = threading.Lock()
        self._tokens_a_pixel = 0.0
        self._probe(sees)

    @classmethod
    def opened(
        cls, settings: EngineSettings, captioner: Captioner, trial: Sampling, shown: Shown
    ) -> TransformersEngine:
        """See recaption.engines.registry."""
        sees, shown = shown is not None, shown or ShownSettings()
        return cls(
            captioner.folder(),
            revision=captioner.revision,
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.batch_size,
            image_size=shown.image_size,
            threads=settings.prepare_threads,
            sees=sees,
        )

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine. Later batches are decoded and processed while earlier ones generate.

        Raises:
            torch.AcceleratorError: the device itself failed; the process has to be replaced.
        """
        return caption_in_batches(
            self._groups(request),
            lambda rows: self._preparer.batch(request, rows),
            lambda batch: self._write(request, batch),
            self._threads,
            lambda error: isinstance(error, torch.AcceleratorError),
        )

    def _groups(self, request: CaptionRequest) -> Iterator[Sequence[int]]:
        """Batches of rows, all with a picture or all without, the longest prompts first.

        Neighbours need little padding then, and memory that runs out does so at once.
        """

        def tokens(row: int) -> tuple[bool, float]:
            picture = request.pictures[row]
            pixels = shown_pixels(picture, self._image_size) if picture is not None else 0
            return picture is None, -self._tokens_a_pixel * pixels - len(request.prompts[row]) / 4

        order = sorted(range(len(request)), key=tokens)
        for _, alike in groupby(order, key=lambda row: request.pictures[row] is None):
            yield from consecutive(list(alike), self._batch_size)

    @torch.inference_mode()
    def _write(self, request: CaptionRequest, batch: Batch) -> list[CaptionOutcome]:
        options = self._options(request.sampling, [request.seeds[row] for row in batch.rows])
        try:
            with self._generating:
                inputs = batch.inputs.to(self.device)
                written = self._model.generate(**inputs, **options)
        except torch.OutOfMemoryError:
            self._batch_size = max(1, len(batch.rows) // 2)  # later requests begin with it
            raise
        prompt = inputs.get("input_ids")
        # Decoder-only models give the prompt back in front, all others their start token.
        echoed = prompt is not None and torch.equal(written[:, : prompt.shape[1]], prompt)
        written = written[:, prompt.shape[1] if echoed else 1 :]
        is_end = torch.isin(written, self._end_tokens)
        ended = is_end.any(1)
        lengths = torch.where(ended, is_end.int().argmax(1) + 1, written.shape[1]).tolist()
        texts = self._reader.batch_decode(written.tolist(), skip_special_tokens=True)
        return [
            CaptionOutcome(
                text=texts[place].strip(),
                finish_reason="stop" if stopped else "length",
                prompt_tokens=batch.prompt_tokens[place] if batch.prompt_tokens else None,
                output_tokens=lengths[place],
                sent_width=size[0] if size else None,
                sent_height=size[1] if size else None,
            )
            for place, (stopped, size) in enumerate(zip(ended.tolist(), batch.sizes, strict=True))
        ]

    def _options(self, sampling: Sampling, seeds: list[int]) -> dict[str, Any]:
        """Of `generate`: greedy search, which draws where a processor adds each row's own noise."""
        options: dict[str, Any] = {
            "max_new_tokens": sampling.max_new_tokens,
            "do_sample": False,
            "num_beams": 1,
        }
        if sampling.repetition_penalty != 1.0:
            options["repetition_penalty"] = sampling.repetition_penalty
        if sampling.temperature > 0:
            columns = torch.tensor(seeds, dtype=torch.int64, device=self.device)
            options["logits_processor"] = [SeededProcessor(columns, sampling)]
        return options

    def _probe(self, sees: bool) -> None:
        """Caption a grey picture, and learn what a picture's tokens depend on.

        Raises:
            ConfigError: it cannot even caption that.
        """
        family = self._model.config.model_type
        template = SHORT if self._preparer.chat else NATIVE.get(family, {}).get("short", SHORT)
        prompts = template.render([None]) * 2
        if not sees:
            asked = CaptionRequest([None], ["Describe a red bicycle."], [0], Sampling(2))
            if (outcome := self.caption(asked)[0]).error is not None:
                raise ConfigError(f"The model was loaded but writes no text ({outcome.detail}).")
            return
        grey = [encode(Image.new("RGB", size, (128, 128, 128)), "png") for size in _PROBE_SIZES]
        request = CaptionRequest(grey, prompts, [0, 1], Sampling(max_new_tokens=2))
        outcomes = self.caption(request)
        if outcomes[0].error is not None:
            raise ConfigError(
                f"The captioner was loaded but cannot caption a grey picture "
                f"({outcomes[0].detail})."
            )
        small, large = (outcome.prompt_tokens for outcome in outcomes)
        if small is not None and large is not None:
            pixels = [shown_pixels(picture, self._image_size) for picture in grey]
            slope = (large - small) / max(1, pixels[1] - pixels[0])
            self._tokens_a_pixel = max(0.0, slope)
