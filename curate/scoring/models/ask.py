"""A question as a score: the probability that a vision-language model answers yes.

Questions of one run are put to one model, which is loaded once. What has no answer is null, and
NAME_error says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.settings import precision_of
from curate.base.weight_download import HUB
from curate.base.weights import weight_hashes
from curate.pictures.decode import PictureView
from curate.scoring.models.source import model_folder, small_files, text_files
from curate.scoring.scorers.scorer import Column, Columns, Scorer, check_column

if TYPE_CHECKING:
    from curate.scoring.models.yes_no import Answerer
    from curate.scoring.settings import ScoreSettings

WORDING = "{} Please answer yes or no."
"""How a question is put."""
LONGEST = 1024
"""Longest side in pixels of a picture as the model is shown it."""
_VIEW = "picture_asked"
_ROWS = 16  # of a forward pass; has no effect on the answers
_IN_FLIGHT = 64


class AskedModel:
    """The model that a run's questions are put to: identified at once, loaded when it is opened."""

    def __init__(self, settings: ScoreSettings) -> None:
        """Find it.

        Raises:
            ConfigError: there is no such model, or its server cannot be asked for its name.
        """
        source = settings.ask_model
        if source is None:
            raise ConfigError(
                "--ask needs a model: --ask-model hf-hub:ORG/NAME, a folder, or the base URL of a "
                "server such as http://localhost:8000/v1."
            )
        self._settings = settings
        self._answerer: Answerer | None = None
        self.hashes: dict[str, str] = {}
        self.served = source.startswith(("http://", "https://"))
        if self.served:
            self.name = settings.ask_served_model or self._only_served()
            # What weights a server really holds cannot be known; the name is all there is.
            self.identity: dict[str, Any] = {"served": self.name}
            if settings.ask_extra_body:
                self.identity["extra_body"] = settings.ask_extra_body
            return
        self.name = source
        self.folder = model_folder(source, "vision-language model", ["tokenizer_config.json"])
        # The hub's cache names a snapshot by its commit; billions of weights need no other hash.
        if not source.startswith(HUB):
            self.hashes = weight_hashes(self.folder)
        self.identity = {
            "weights": self.hashes or self.folder.name,
            "configs": small_files(self.folder),
            "words": text_files(self.folder),
            "precision": precision_of(settings.ask_precision, settings.device),
        }

    def _only_served(self) -> str:
        from curate.served.models import served_model

        return served_model(self._server(""))

    def _server(self, name: str) -> Any:
        from curate.served.address import Server

        settings = self._settings
        assert settings.ask_model is not None
        body = settings.ask_extra_body
        key = settings.ask_api_key_env
        return Server(settings.ask_model, name, key, extra_body=body, prefix="ask_")

    def open(self) -> Answerer:
        """The model, after it has answered a question.

        Raises:
            ConfigError: it does not load or answer, or cannot say yes and no.
        """
        from curate.scoring.models.yes_no import LocalAnswerer, ServedAnswerer, tried

        if self._answerer is None:
            made: Answerer
            if self.served:
                made = ServedAnswerer(self._server(self.name), _IN_FLIGHT)
            else:
                device, precision = self._settings.device, self._settings.ask_precision
                made = LocalAnswerer(self.folder, device, precision, _ROWS, self.name)
            self._answerer = tried(made, self.name)
        return self._answerer

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_answerer": None}


class Ask(Scorer):
    """Adds `NAME`, the probability of yes, 0 to 1, and `NAME_error`, why there is none.

    Args:
        column: NAME.
        question: as it is put, before WORDING.
        model: whom it is put to; scorers may share it.
    """

    def __init__(self, column: str, question: str, model: AskedModel, draft: bool = True) -> None:
        check_column(column)
        self.name, self.question = column, WORDING.format(question.strip())
        self.error = f"{column}_error"
        self.adds = (column, self.error)
        self._model, self._draft = model, draft
        self.late = model.served  # it may be gone when nothing is asked any more
        self.needs = (_VIEW, "pixel_sha256")

    @classmethod
    def of(cls, settings: ScoreSettings) -> list[Ask]:
        """One a question."""
        if not settings.ask:
            return []
        model = AskedModel(settings)
        return [cls(name, text, model, settings.jpeg_draft) for name, text in settings.ask.items()]

    @property
    def served_model(self) -> str:
        """The name of the model on its server; empty for one in this process."""
        return self._model.name if self._model.served else ""

    def signature(self) -> dict[str, Any]:
        """The question and the model; where a server is, is no part of it."""
        asked = {"question": self.question, "longest": LONGEST, "draft": self._draft}
        return {"version": 1, **asked, "model": self._model.identity}

    def hashes(self) -> Mapping[str, str]:
        return self._model.hashes

    def open(self) -> None:
        self._model.open()

    def views(self) -> Mapping[str, PictureView]:
        return {_VIEW: PictureView(LONGEST, draft=self._draft, whole=True)}

    def score(self, columns: Mapping[str, Column]) -> Columns:
        seen = [row for row, known in enumerate(columns["pixel_sha256"]) if known is not None]
        pictures = [Image.fromarray(columns[_VIEW][row]) for row in seen]
        answers = self._model.open().yes(pictures, [self.question] * len(seen))
        yes = np.full(len(columns["pixel_sha256"]), np.nan, np.float32)
        yes[seen] = answers.yes
        errors: list[str | None] = [None] * len(yes)
        for number, words in answers.errors.items():
            errors[seen[number]] = words
        return {self.name: yes, self.error: pa.array(errors, pa.string())}
