"""Captions by an open_clip CoCa (Yu et al. 2022): the captioner that DALL-E 3's follows.

A CoCa reads no instructions: it writes the kind "short" only, one sentence of at most 75 tokens.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.settings import Precision, device_of, precision_of
from curate.base.threads import in_threads
from curate.scoring.scorers.clip_source import (
    check_source,
    import_open_clip,
    refuse_pickle,
    registered,
)
from recaption.engines.coca_decoder import CocaDecoder
from recaption.engines.coca_search import Vocabulary, write, write_by_beam
from recaption.engines.pictures import BrokenPictureError, decode, encode
from recaption.engines.protocol import (
    BROKEN_PICTURE,
    ENGINE_ERROR,
    NO_PICTURE,
    CaptionOutcome,
    CaptionRequest,
    Sampling,
)
from recaption.engines.transformers.inputs import words

logger = logging.getLogger(__name__)

_THREADS = 4


class CocaEngine:
    """A CoCa in this process; see CaptionEngine."""

    name = "coca"

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        revision: str = "",
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 32,
        image_size: int = 0,
        beams: int = 1,
    ) -> None:
        """Load the model and caption a grey picture, so that faults show here.

        Args:
            model: `local-dir:/folder`, `hf-hub:ORG/NAME`, or an open_clip name.
            pretrained: with a name: a tag of open_clip's, or a .safetensors file.
            revision: recorded with the captions.
            device, precision, batch_size: as TransformersEngine.
            image_size: longest side in pixels before the model's own resizing; 0 is the stored one.
            beams: texts that are followed at once where the temperature is 0; 1 is greedy.

        Raises:
            ConfigError: no such model, a pickle, or none that can caption.
        """
        open_clip = import_open_clip()
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.revision = revision
        self.device = torch.device(device_of(device))
        self._batch_size, self._image_size, self._beams = batch_size, image_size, beams
        weights = check_source(model, pretrained)
        name, options = registered(model)
        try:
            if pretrained is not None and not weights:
                refuse_pickle(name, pretrained, ())
            self._model = open_clip.create_model(
                name,
                pretrained=pretrained,
                precision=precision_of(precision, str(self.device)),
                device=self.device,
                require_pretrained=True,
                **options,
            ).eval()
        except (RuntimeError, OSError, ValueError, TypeError) as error:
            raise ConfigError(f"The CoCa {model!r} does not load ({words(error)}).") from error
        self._model.requires_grad_(False)
        self._decoder = CocaDecoder(self._model)
        self._dtype = next(self._model.visual.parameters()).dtype
        preprocess = PreprocessCfg(**open_clip.get_model_preprocess_cfg(self._model))
        self._transform = image_transform_v2(preprocess, is_train=False)
        # Not cut to the model's context here: nothing is encoded, and encoding for a CoCa would
        # have to leave a place for its class token (76 of 77).
        self._tokenizer = open_clip.get_tokenizer(name)
        if not isinstance(self._tokenizer, open_clip.SimpleTokenizer):
            raise ConfigError(f"The CoCa {model!r} has a tokenizer other than CLIP's.")
        self._vocabulary = Vocabulary(self._tokenizer.sot_token_id, self._tokenizer.eot_token_id)
        self._probe()

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine. Prompts are not read; the next batch is decoded meanwhile."""
        started = time.perf_counter()
        outcomes: dict[int, CaptionOutcome] = {}
        size = self._batch_size
        parts = [
            range(start, min(start + size, len(request))) for start in range(0, len(request), size)
        ]
        prepared = in_threads(lambda rows: self._prepare(request, rows), parts, _THREADS)
        for rows, pictures, sizes, lost in prepared:
            outcomes |= lost
            self._caption_rows(request, rows, pictures, sizes, outcomes)
        share = (time.perf_counter() - started) / max(1, len(request))
        return [
            outcome if outcome.text is None else replace(outcome, latency_seconds=share)
            for outcome in (outcomes[row] for row in range(len(request)))
        ]

    def _prepare(
        self, request: CaptionRequest, rows: Sequence[int]
    ) -> tuple[list[int], torch.Tensor, list[tuple[int, int]], dict[int, CaptionOutcome]]:
        """(rows, pictures (B, 3, S, S), sizes as shown, outcomes of the other rows)."""
        good: list[int] = []
        tensors: list[torch.Tensor] = []
        sizes: list[tuple[int, int]] = []
        lost: dict[int, CaptionOutcome] = {}
        for row in rows:
            encoded = request.pictures[row]
            if encoded is None:
                detail = "a CoCa cannot work on a text alone"
                lost[row] = CaptionOutcome(error=NO_PICTURE, detail=detail)
                continue
            try:
                image = decode(encoded, self._image_size)
            except BrokenPictureError as error:
                lost[row] = CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
                continue
            tensors.append(self._transform(image))
            sizes.append(image.size)
            good.append(row)
        return good, torch.stack(tensors) if tensors else torch.empty(0), sizes, lost

    def _caption_rows(
        self,
        request: CaptionRequest,
        rows: list[int],
        pictures: torch.Tensor,
        sizes: list[tuple[int, int]],
        outcomes: dict[int, CaptionOutcome],
    ) -> None:
        """Caption a batch; where it fails, halve it until the bad rows stand alone."""
        if not rows:
            return
        seeds = [request.seeds[row] for row in rows]
        try:
            written = self._write(pictures, seeds, request.sampling)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            failure = words(error)
            if isinstance(error, torch.OutOfMemoryError):
                self._batch_size = max(1, len(rows) // 2)
        else:
            for row, tokens, size in zip(rows, written, sizes, strict=True):
                outcomes[row] = self._outcome(tokens, size)
            return
        if len(rows) == 1:
            logger.warning("a row could not be captioned: %s", failure)
            outcomes[rows[0]] = CaptionOutcome(error=ENGINE_ERROR, detail=failure)
            return
        middle = len(rows) // 2
        for half in (slice(None, middle), slice(middle, None)):
            self._caption_rows(request, rows[half], pictures[half], sizes[half], outcomes)

    @torch.inference_mode()
    def _write(
        self, pictures: torch.Tensor, seeds: list[int], sampling: Sampling
    ) -> list[list[int]]:
        _, seen = self._model._encode_image(pictures.to(self.device, self._dtype))
        if self._beams > 1 and sampling.temperature == 0:
            most = sampling.max_new_tokens
            return write_by_beam(self._decoder, seen, self._vocabulary, most, self._beams)
        return write(self._decoder, seen, self._vocabulary, sampling, seeds)

    def _outcome(self, tokens: list[int], size: tuple[int, int]) -> CaptionOutcome:
        ended = tokens[-1] == self._vocabulary.end
        special = (self._vocabulary.start, self._vocabulary.end)
        text = self._tokenizer.decode([token for token in tokens if token not in special])
        return CaptionOutcome(
            text=text.strip(),
            finish_reason="stop" if ended else "length",
            output_tokens=len(tokens),
            sent_width=size[0],
            sent_height=size[1],
        )

    def _probe(self) -> None:
        grey: Any = encode(Image.new("RGB", (64, 64), (128, 128, 128)), "png")
        outcome = self.caption(CaptionRequest([grey], [""], [0], Sampling(2)))[0]
        if outcome.error is not None:
            raise ConfigError(f"The CoCa cannot caption a grey picture ({outcome.detail}).")
