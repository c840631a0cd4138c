"""The probability that a model answers yes: in this process, or behind a server.

One forward pass a question, nothing is written: P(yes) / (P(yes) + P(no)) at the answer's first
token, each summed over the tokens that spell the word ("yes", "Yes", " yes", ...). A server has to
give log-probabilities; of its 20 likeliest tokens those count that spell one of the two.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.base.errors import ConfigError, StageError
from curate.base.reasons import printable, words
from curate.base.settings import Precision, device_of, dtype_of, precision_of
from curate.base.threads import in_threads
from curate.served.address import Server

logger = logging.getLogger(__name__)

_TOP = 20  # the most that OpenAI and, by default, vLLM give
_GREY_SIDE = 64  # pixels of the trial's picture
_TRIAL = "Is this picture grey? Please answer yes or no."
_UNSURE = 0.1  # of a model that begins its answers otherwise, yes and no tell little


@dataclass(frozen=True)
class Answers:
    """Of N questions.

    Attributes:
        yes: P(yes) of yes and no, (N,); NaN where there is no answer.
        either: P(yes) + P(no), (N,): whether the model answers the question at all.
        errors: why not, by the number of the question.
    """

    yes: NDArray[np.float64]
    either: NDArray[np.float64]
    errors: dict[int, str] = field(default_factory=dict)

    @classmethod
    def none(cls, count: int) -> Answers:
        """Nothing is answered yet."""
        return cls(np.full(count, np.nan), np.full(count, np.nan))


class Answerer(Protocol):
    """Says how likely a model answers yes. Threads may ask at once."""

    def yes(self, pictures: Sequence[Image.Image], questions: Sequence[str]) -> Answers:
        """Of N pictures in RGB and a question each; a row that fails does not end the others."""
        ...


def tried(answerer: Answerer, name: str) -> Answerer:
    """The answerer, after it has answered a question about a grey picture.

    Raises:
        ConfigError: it cannot.
    """
    answers = answerer.yes([_grey()], [_TRIAL])
    if answers.errors:
        raise ConfigError(f"{name} answers no question ({answers.errors[0]}).")
    if answers.either[0] < _UNSURE:
        logger.warning(
            "%s begins an answer with yes or no with a probability of %.2g alone: it may think "
            "first, and then the scores of --ask mean little",
            name,
            answers.either[0],
        )
    return answerer


def _grey() -> Image.Image:
    return Image.new("RGB", (_GREY_SIDE, _GREY_SIDE), (128, 128, 128))


def spells(token: str, word: str) -> bool:
    """Whether a token is `word`: in any case, with a space before it or a sign behind it."""
    return token.strip("Ġ▁Ċ \n.,!").lower() == word


def word_tokens(vocabulary: Mapping[str, int], word: str) -> list[int]:
    """Numbers of all tokens that spell `word`."""
    return sorted(number for token, number in vocabulary.items() if spells(token, word))


def yes_among(tokens: Sequence[tuple[str, float]]) -> tuple[float, float]:
    """P(yes) of yes and no, and P(yes) + P(no), of (token, log-probability); NaN and 0 where
    neither is among them."""
    yes, no = (
        math.fsum(math.exp(p) for token, p in tokens if spells(token, word))
        for word in ("yes", "no")
    )
    return (yes / (yes + no) if yes + no > 0 else math.nan), yes + no


class LocalAnswerer:
    """A model in this process: one forward pass a batch, of which the last logits are read."""

    def __init__(
        self, folder: Path | str, device: str, precision: Precision, batch_size: int, name: str
    ) -> None:
        """Load it.

        Args:
            batch_size: questions a forward pass; no effect on the answers.
            name: what it is called in messages.

        Raises:
            ConfigError: it does not load, has no chat template, or no token for yes or no.
        """
        import torch

        from curate.scoring.models.chat import ModelInputs, load_captioner

        self._device = torch.device(device_of(device))
        self._dtype = dtype_of(precision_of(precision, str(self._device)))
        processor, self._model = load_captioner(folder, self._dtype, self._device)
        self._inputs, self._batch_size = ModelInputs(processor), batch_size
        if not self._inputs.chat:
            raise ConfigError(f"{name} has no chat template and cannot be asked.")
        vocabulary = processor.tokenizer.get_vocab()
        self._words = [word_tokens(vocabulary, word) for word in ("yes", "no")]
        if not all(self._words):
            raise ConfigError(f"The tokenizer of {name} has no token for yes or for no.")

    def yes(self, pictures: Sequence[Image.Image], questions: Sequence[str]) -> Answers:
        """See Answerer."""
        answers = Answers.none(len(questions))

        def prepared(rows: list[int]) -> tuple[list[int], Any]:
            images, asked = [pictures[row] for row in rows], [questions[row] for row in rows]
            try:
                return rows, self._inputs(images, asked).to(self._dtype)
            except Exception as error:  # image processors refuse pictures in their own ways
                return rows, words(error)

        # Neighbours of one length need little padding.
        order = sorted(range(len(questions)), key=lambda row: len(questions[row]))
        groups = [
            order[start : start + self._batch_size]
            for start in range(0, len(order), self._batch_size)
        ]
        for rows, inputs in in_threads(prepared, groups, 2):
            if not isinstance(inputs, str):
                answers.yes[rows], answers.either[rows] = self._shares(inputs)
                continue
            for row, (_, alone) in ((row, prepared([row])) for row in rows):
                if isinstance(alone, str):
                    answers.errors[row] = printable(alone)
                else:
                    answers.yes[[row]], answers.either[[row]] = self._shares(alone)
        return answers

    def _shares(self, inputs: Any) -> NDArray[np.float64]:
        """(2, B): P(yes) of yes and no, and P(yes) + P(no)."""
        import torch

        with torch.inference_mode():
            chances = self._last_logits(inputs.to(self._device)).double().log_softmax(1)
            yes, no = (chances[:, ids].logsumexp(1) for ids in self._words)
            both = torch.stack([torch.sigmoid(yes - no), torch.logaddexp(yes, no).exp()])
            return np.asarray(both.cpu().numpy())

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

    def __init__(self, server: Server, in_flight: int) -> None:
        """Ask it about a grey picture.

        Raises:
            ConfigError: it is not there, refuses us, or gives no text.
        """
        from curate.served.client import ChatClient

        self._client, self._in_flight = ChatClient(server, in_flight), in_flight
        self._server = server
        fault = self._fault()
        if fault is not None and "max_tokens" in fault:  # some call it otherwise
            self._server = replace(server, token_limit_field="max_completion_tokens")
            fault = self._fault()
        if fault is not None:
            self._client.close()
            raise ConfigError(fault)

    def _fault(self) -> str | None:
        """Why the server answers nothing now, in one sentence; None where it does."""
        from curate.served.client import impatient, trial_fault
        from curate.served.reply import ONLY_REASONING

        grey, server = _grey(), self._server
        body = _body(server, grey, _TRIAL)
        outcome = self._client.run(self._client.ask(body, 1, grey.size, impatient(server)))
        if outcome.error == ONLY_REASONING:
            return (
                f"The model at {server.base_url} thinks before it answers; tell it not to, with "
                f'--ask-extra-body "chat_template_kwargs={{enable_thinking: false}}" for vLLM and '
                f"SGLang."
            )
        if outcome.error in ("http_400", "http_422"):
            return (
                f"The server at {server.base_url} refuses the question ({outcome.detail}); it has "
                f"to take a picture, logprobs and top_logprobs (as few as --ask-extra-body "
                f"top_logprobs=5 says)."
            )
        return trial_fault(server, outcome, sees=True)

    def yes(self, pictures: Sequence[Image.Image], questions: Sequence[str]) -> Answers:
        """See Answerer.

        Raises:
            StageError: the server is gone, broken, or lets us in no more.
        """
        answers = self._client.run(self._answers(pictures, questions))
        # What one picture brings about is its own; what holds for any would be stored for all.
        if answers.errors and (fault := self._fault()) is not None:
            raise StageError(
                f"{fault} What was finished is kept; the same command takes up the rest."
            )
        return answers

    async def _answers(self, pictures: Sequence[Image.Image], questions: Sequence[str]) -> Answers:
        answers = Answers.none(len(questions))
        window = asyncio.Semaphore(self._in_flight)  # pictures are encoded as they are asked about

        async def ask(row: int) -> None:
            async with window:
                picture, question = pictures[row], questions[row]
                body = await asyncio.to_thread(_body, self._server, picture, question)
                outcome = await self._client.ask(body, 1, picture.size)
            answers.yes[row], answers.either[row] = yes_among(outcome.first_tokens)
            if outcome.error is not None:
                answers.errors[row] = printable(f"{outcome.error}: {outcome.detail}")
            elif math.isnan(answers.yes[row]):
                missing = "neither yes nor no is in its top_logprobs"
                if not outcome.first_tokens:
                    missing = "its server gives no top_logprobs"
                answers.errors[row] = printable(f"it begins with {outcome.text!r}, and {missing}")

        async with asyncio.TaskGroup() as group:
            for row in range(len(questions)):
                group.create_task(ask(row))
        return answers


def _body(server: Server, picture: Image.Image, question: str) -> bytes:
    """The JSON of one question."""
    file = io.BytesIO()
    picture.save(file, "png", compress_level=1)
    address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    content = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": question},
    ]
    fields = {
        "model": server.model,
        "messages": [{"role": "user", "content": content}],
        server.token_limit_field: 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": _TOP,
    }
    return json.dumps({**fields, **server.extra_body}, separators=(",", ":")).encode("ascii")
