"""The probability of yes against no, of a model of transformers or of a server's log-probabilities.

Models are loaded, fed and asked as for captions (recaption.engines): left padding, no code of a
repository, safetensors only; servers with the same patience.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.base.errors import CaplabError, ConfigError
from curate.base.settings import device_of, dtype_of, precision_of
from curate.base.threads import in_threads
from recaption.engines.identity import Captioner
from recaption.engines.pictures import encode
from recaption.engines.protocol import CaptionRequest, Sampling
from recaption.engines.settings import EngineSettings

logger = logging.getLogger(__name__)

_ONE_TOKEN = Sampling(max_new_tokens=1)
_TOP = 20  # the most that OpenAI and, by default, vLLM give


class Answerer(Protocol):
    """Says how likely a model answers yes."""

    def yes(self, pictures: Sequence[bytes], questions: Sequence[str]) -> NDArray[np.float64]:
        """P(yes) of yes and no for N encoded pictures and a question each, (N,); NaN: no answer."""
        ...


def opened(settings: EngineSettings, captioner: Captioner) -> Answerer:
    """The model that the settings name, after it has answered a question about a grey picture.

    Raises:
        ConfigError: it does not load or answer, or cannot say yes and no.
    """
    served = captioner.engine == "http"
    answerer = ServedAnswerer(settings, captioner) if served else LocalAnswerer(settings, captioner)
    grey = encode(Image.new("RGB", (64, 64), (128, 128, 128)), "png")
    try:
        answerer.yes([grey], ["Is this picture grey? Please answer yes or no."])
    except CaplabError as error:
        raise ConfigError(str(error)) from error
    return answerer


def word_tokens(vocabulary: Mapping[str, int], word: str) -> list[int]:
    """Numbers of all tokens that spell `word` in any case, with or without a space before it."""
    return sorted(
        number for token, number in vocabulary.items() if token.strip("Ġ▁ ").lower() == word
    )


class LocalAnswerer:
    """A model in this process: one forward pass a batch, of which the last logits are read."""

    def __init__(self, settings: EngineSettings, captioner: Captioner) -> None:
        """Load it.

        Raises:
            ConfigError: it does not load, has no chat template, or no token for yes or no.
        """
        import torch

        from recaption.engines.transformers.inputs import Preparer
        from recaption.engines.transformers.loading import load_captioner, picture_token

        self._device = torch.device(device_of(settings.device))
        dtype = dtype_of(precision_of(settings.precision, str(self._device)))
        processor, self._model = load_captioner(captioner.folder(), dtype, self._device)
        self._preparer = Preparer(processor, dtype, 0, picture_token(self._model.config))
        self._batch_size = settings.batch_size
        if not self._preparer.chat:
            raise ConfigError(f"{captioner.model} has no chat template and cannot be asked.")
        vocabulary = processor.tokenizer.get_vocab()
        self._words = [word_tokens(vocabulary, word) for word in ("yes", "no")]
        if not all(self._words):
            raise ConfigError(f"The tokenizer of {captioner.model} has no token for yes or for no.")

    def yes(self, pictures: Sequence[bytes], questions: Sequence[str]) -> NDArray[np.float64]:
        """See Answerer.

        Raises:
            CaplabError: the processor refuses the pictures.
        """
        import torch

        found = np.full(len(questions), np.nan)
        request = CaptionRequest(pictures, questions, [0] * len(questions), _ONE_TOKEN)
        # Neighbours of one length need little padding.
        order = sorted(range(len(questions)), key=lambda row: len(questions[row]))
        groups: Iterable[list[int]] = [
            order[start : start + self._batch_size]
            for start in range(0, len(order), self._batch_size)
        ]
        for batch in in_threads(lambda rows: self._preparer.batch(request, rows), groups, 2):
            if batch.failure is not None:
                raise CaplabError(f"The model cannot be shown a picture ({batch.failure}).")
            with torch.inference_mode():
                logits = self._last_logits(batch.inputs.to(self._device))
                yes, no = (logits[:, ids].double().logsumexp(1) for ids in self._words)
                found[batch.rows] = torch.sigmoid(yes - no).cpu().numpy()
        return found

    def _last_logits(self, inputs: Any) -> Any:
        """(B, V) of the first token that would be written. `generate` knows each architecture's
        positions under padding, and asks for the last position's logits alone."""
        made = self._model.generate(
            **inputs,
            max_new_tokens=1,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return made.logits[0]


class ServedAnswerer:
    """A model behind an OpenAI-compatible server that gives log-probabilities."""

    def __init__(self, settings: EngineSettings, captioner: Captioner) -> None:
        """Ask it for a caption of a grey picture.

        Raises:
            ConfigError: it gives none.
        """
        from recaption.engines.http.engine import HttpEngine
        from recaption.engines.http.models import server_of

        asking = settings.model_copy(
            update={"extra_body": {"logprobs": True, "top_logprobs": _TOP}}
        )
        self._place = settings.captioner
        self._engine = HttpEngine(
            server_of(asking, captioner.model),
            in_flight=settings.in_flight,
            image_size=0,
            picture_format="png",
        )

    def yes(self, pictures: Sequence[bytes], questions: Sequence[str]) -> NDArray[np.float64]:
        """See Answerer; what the server refuses or answers otherwise is NaN, and told.

        Raises:
            CaplabError: not one question of these was answered with yes or no.
        """
        seeds = [0] * len(questions)
        outcomes = self._engine.caption(CaptionRequest(pictures, questions, seeds, _ONE_TOKEN))
        found = np.array([yes_among(outcome.first_tokens) for outcome in outcomes], np.float64)
        lost = np.flatnonzero(np.isnan(found))
        if len(lost):
            one = outcomes[lost[0]]
            why = (
                f"{one.error}: {one.detail}"
                if one.error is not None
                else f"it begins with {one.text!r}, and neither yes nor no is in its top_logprobs"
            )
            if len(lost) == len(found):
                raise CaplabError(f"The server at {self._place} answers no question ({why}).")
            logger.warning("%d of %d questions have no answer (%s)", len(lost), len(found), why)
        return found


def yes_among(tokens: Sequence[tuple[str, float]]) -> float:
    """P(yes) of yes and no, of (token, log-probability); NaN where neither is among them."""
    yes, no = (
        math.fsum(math.exp(p) for token, p in tokens if token.strip("Ġ▁ \n").lower() == word)
        for word in ("yes", "no")
    )
    return yes / (yes + no) if yes + no > 0 else math.nan
