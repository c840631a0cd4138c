"""Captions by a transformers model in this process: batched, left-padded, one outcome a row.

Any model that `AutoModelForImageTextToText` knows, from safetensors. Models with a chat template
get system and user turns; models without one get their prompt as it is (see `prompts`).

Pictures are decoded and processed by threads while the model generates (`inputs`), and
rows whose text has ended make room for others (`decoding`). Models that the latter cannot
decode go through `model.generate`, a batch at a time.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.generation import GenerationMixin

from curate.base.errors import ConfigError
from curate.base.settings import Precision, device_of, dtype_of, precision_of
from curate.base.threads import in_threads
from recaption.engines.pictures import encode, shown_pixels
from recaption.engines.protocol import (
    ENGINE_ERROR,
    CaptionOutcome,
    CaptionRequest,
    FinishReason,
    Sampling,
)
from recaption.engines.sampling import SeededProcessor
from recaption.engines.transformers.decoding import Flight
from recaption.engines.transformers.inputs import Batch, Preparer, words
from recaption.engines.transformers.loading import end_token_ids, load_captioner, picture_token
from recaption.engines.transformers.prefill import CannotDecodeError, prefill
from recaption.prompts.templates import NATIVE, SHORT

logger = logging.getLogger(__name__)

# Rows read their prompts in groups of this share of a batch: small enough that few places stand
# empty until a group fits, large enough for matrix products that fill a device.
_GROUPS_A_BATCH = 4
# Processed pictures kept for the next kind of caption and for retries.
PICTURE_CACHE_BYTES = 1 << 30
_PROBE_SIZES = ((64, 64), (160, 128))

Outcomes = dict[int, CaptionOutcome]
Failed = tuple[list[int], str]
"""Rows that could not be captioned together, and the error in words."""


class TransformersEngine:
    """A captioner in this process; see CaptionEngine.

    Threads may call `caption` at once: one request generates while the others are prepared.
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

        Raises:
            ConfigError: the folder holds no captioner that transformers can load and run.
        """
        self.revision = revision
        self.device = torch.device(device_of(device))
        self._batch_size = batch_size
        self._image_size = image_size
        self._threads = threads or min(8, os.cpu_count() or 1)
        dtype = dtype_of(precision_of(precision, str(self.device)))
        processor, self._model = load_captioner(folder, dtype, self.device)
        self._tokenizer = processor.tokenizer
        # A tokenizer of its own: the other one works in threads, which it refuses to share.
        self._reader = copy.deepcopy(self._tokenizer)
        self._end_tokens = torch.tensor(
            end_token_ids(self._model, self._tokenizer), device=self.device
        )
        self._preparer = Preparer(
            processor,
            self.device,
            self._model.dtype,
            image_size,
            picture_token(self._model.config),
            PICTURE_CACHE_BYTES,
        )
        self._generating = threading.Lock()
        self._tokens_a_pixel = 0.0
        self._window: int | None = None
        self.in_flight = False
        """Whether rows leave and join (`decoding`); else they go through generate."""
        self._probe()

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine. Later groups are decoded and processed while earlier ones generate."""
        outcomes: dict[int, CaptionOutcome] = {}
        started = time.perf_counter()
        size = -(-self._batch_size // _GROUPS_A_BATCH) if self.in_flight else self._batch_size
        batches = in_threads(
            lambda rows: self._preparer.batch(request, rows),
            _groups(request, self._order(request), size),
            self._threads + 1,  # with one thread nothing would run ahead
        )
        with self._generating:
            run = self._fly if self.in_flight else self._in_batches
            failed = run(request, batches, outcomes)
            for rows, failure in failed:
                self._halve(request, rows, failure, outcomes)
        share = (time.perf_counter() - started) / max(1, len(request))
        return [
            outcome if outcome.text is None else replace(outcome, latency_seconds=share)
            for outcome in (outcomes[row] for row in range(len(request)))
        ]

    def _order(self, request: CaptionRequest) -> list[int]:
        """Rows, the longest prompts first, so that neighbours need little padding.

        The longest come first because memory that runs out should do so at once.
        """

        def tokens(row: int) -> tuple[bool, float]:
            picture = request.pictures[row]
            seen = 0.0
            if picture is not None and self._tokens_a_pixel:
                seen = self._tokens_a_pixel * shown_pixels(picture, self._image_size)
            return picture is not None, seen + len(request.prompts[row]) / 4

        return sorted(range(len(request)), key=tokens, reverse=True)

    # ---- rows in flight -----------------------------------------------------------------------

    def _fly(
        self, request: CaptionRequest, batches: Iterator[Batch], outcomes: Outcomes
    ) -> list[Failed]:
        """Caption all batches, rows joining as others end; those that could not be together."""
        failed: list[Failed] = []
        flight = Flight(self._model, self._end_tokens, request.sampling)
        shown: dict[int, tuple[Batch, int]] = {}
        waiting: Batch | None = None
        while True:
            waiting = waiting or _next(batches, outcomes, failed)
            try:
                fits = waiting is not None and self._fits(flight, waiting, request.sampling)
                if waiting is not None and not len(flight) and not fits:
                    failed += self._in_batches(request, iter([waiting]), outcomes)
                    waiting = None
                    continue
                if waiting is not None and fits:
                    group, waiting = waiting, None
                    shown |= {row: (group, place) for place, row in enumerate(group.rows)}
                    seeds = [request.seeds[row] for row in group.rows]
                    flight.join(group.rows, seeds, prefill(self._model, group.inputs))
                    group.inputs = None
                    continue
                if not len(flight):
                    return failed
                written = flight.fly()
                if waiting is None:
                    flight.shrink()
            except torch.AcceleratorError:
                raise
            except Exception as error:
                self._smaller_after(error, len(shown))
                failed.append((list(shown), words(error)))
                shown = {}
                flight = Flight(self._model, self._end_tokens, request.sampling)
                continue
            texts = self._words_of([done.tokens for done in written])
            for done, text in zip(written, texts, strict=True):
                batch, place = shown.pop(done.row)
                finish: FinishReason = "stop" if done.ended else "length"
                outcomes[done.row] = _outcome(batch, place, text, finish, len(done.tokens))

    def _fits(self, flight: Flight, group: Batch, sampling: Sampling) -> bool:
        """Whether a group can join: there are places, and no window is too narrow for its texts."""
        longest = max(flight.length, group.inputs["input_ids"].shape[1])
        if self._window is not None and longest + sampling.max_new_tokens > self._window:
            return False
        return not len(flight) or len(flight) + len(group.rows) <= self._batch_size

    # ---- whole batches ------------------------------------------------------------------------

    def _in_batches(
        self, request: CaptionRequest, batches: Iterator[Batch], outcomes: Outcomes
    ) -> list[Failed]:
        """Caption batch after batch by `generate`; those that could not be together."""
        failed: list[Failed] = []
        while (batch := _next(batches, outcomes, failed)) is not None:
            try:
                seeds = [request.seeds[row] for row in batch.rows]
                written = self._generate(batch.inputs, seeds, request.sampling)
            except torch.AcceleratorError:
                raise
            except Exception as error:
                self._smaller_after(error, len(batch.rows))
                failed.append((batch.rows, words(error)))
                continue
            finally:
                batch.inputs = None
            for place, (text, finish, tokens) in enumerate(written):
                outcomes[batch.rows[place]] = _outcome(batch, place, text, finish, tokens)
        return failed

    def _halve(
        self, request: CaptionRequest, rows: list[int], failure: str, outcomes: Outcomes
    ) -> None:
        """Caption rows that failed together by halves, until the bad ones stand alone.

        Halving also finds a batch that fits where memory ran out; later requests begin with it.

        Raises:
            torch.AcceleratorError: the device itself failed; the process has to be replaced.
        """
        middle = -(-len(rows) // 2)
        for half in (rows[:middle], rows[middle:]):
            batches = iter([self._preparer.batch(request, half)] if half else [])
            run = self._fly if self.in_flight else self._in_batches
            for some, again in run(request, batches, outcomes):
                if len(some) > 1:
                    self._halve(request, some, again, outcomes)
                else:
                    logger.warning("a row could not be captioned: %s", again)
                    outcomes[some[0]] = CaptionOutcome(error=ENGINE_ERROR, detail=again)

    def _smaller_after(self, error: Exception, rows: int) -> None:
        if isinstance(error, torch.OutOfMemoryError):
            self._batch_size = max(1, rows // 2)

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
            options["logits_processor"] = [SeededProcessor(columns, sampling)]
        written = self._model.generate(**inputs, **options)
        prompt = inputs.get("input_ids")
        # Decoder-only models give the prompt back in front, all others their start token.
        echoed = prompt is not None and torch.equal(written[:, : prompt.shape[1]], prompt)
        written = written[:, prompt.shape[1] if echoed else 1 :]
        is_end = torch.isin(written, self._end_tokens)
        ended = is_end.any(1)
        lengths = torch.where(ended, is_end.int().argmax(1) + 1, written.shape[1]).tolist()
        texts = self._words_of(written.tolist())
        return [
            (text, "stop" if stopped else "length", length)
            for text, stopped, length in zip(texts, ended.tolist(), lengths, strict=True)
        ]

    def _words_of(self, tokens: list[list[int]]) -> list[str]:
        texts = self._reader.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    # ---- set-up -------------------------------------------------------------------------------

    def _probe(self) -> None:
        """Caption grey pictures, and find out which of the faster ways this captioner can go.

        Raises:
            ConfigError: it cannot even caption them.
        """
        family = self._model.config.model_type
        template = SHORT if self._preparer.chat else NATIVE.get(family, {}).get("short", SHORT)
        prompt = template.render([None])[0]
        prompts = [prompt, f"{prompt} {prompt}" if self._preparer.chat else prompt]
        grey = [encode(Image.new("RGB", size, (128, 128, 128)), "png") for size in _PROBE_SIZES]
        request = CaptionRequest(grey, prompts, [0, 1], Sampling(max_new_tokens=4))
        first = self.caption(CaptionRequest(grey[:1], prompts[:1], [0], Sampling(max_new_tokens=2)))
        if first[0].error is not None:
            raise ConfigError(
                f"The captioner was loaded but cannot caption a grey picture ({first[0].detail})."
            )
        if not self._preparer.process_alone(request):
            self._threads = 1
        same = replace(request, prompts=[prompt, prompt])
        tokens = [self._preparer.batch(same, [row]).prompt_tokens for row in range(2)]
        if tokens[0] and tokens[1]:
            pixels = [shown_pixels(picture, self._image_size) for picture in grey]
            slope = (tokens[1][0] - tokens[0][0]) / max(1, pixels[1] - pixels[0])
            self._tokens_a_pixel = max(0.0, slope)
        self.in_flight = self._can_fly(request)

    def _can_fly(self, request: CaptionRequest) -> bool:
        """Whether rows in flight say what `generate` says."""
        batch = self._preparer.batch(request, range(len(request)))
        if batch.failure or type(self._model).generate is not GenerationMixin.generate:
            return False
        try:
            self._window = prefill(self._model, batch.inputs).window
        except CannotDecodeError as error:
            logger.info("captions go through generate, for %s", error)
            return False
        except (TypeError, ValueError, AttributeError, KeyError, RuntimeError) as error:
            # An architecture that wants something else of its caller; its own generate knows what.
            logger.warning("captions go through generate (%s)", words(error))
            return False
        plain = [outcome.text for outcome in self.caption(request)]
        self.in_flight = True
        flown = [outcome.text for outcome in self.caption(request)]
        if flown != plain:
            logger.warning("captions go through generate, for rows in flight came out differently")
        return flown == plain


def _groups(request: CaptionRequest, order: Sequence[int], size: int) -> Iterator[list[int]]:
    """Consecutive rows, `size` at most, all with a picture or all without."""
    for _, rows in groupby(order, key=lambda row: request.pictures[row] is None):
        alike = list(rows)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _next(batches: Iterator[Batch], outcomes: Outcomes, failed: list[Failed]) -> Batch | None:
    """The next batch that can go through the model; None behind the last."""
    for batch in batches:
        outcomes.update(batch.lost)
        if batch.failure is not None:
            failed.append((batch.rows, batch.failure))
        elif batch.rows:
            return batch
    return None


def _outcome(
    batch: Batch, place: int, text: str, finish: FinishReason, tokens: int
) -> CaptionOutcome:
    size = batch.sizes[place]
    return CaptionOutcome(
        text=text,
        finish_reason=finish,
        prompt_tokens=batch.prompt_tokens[place] if batch.prompt_tokens else None,
        output_tokens=tokens,
        sent_width=size[0] if size else None,
        sent_height=size[1] if size else None,
    )
