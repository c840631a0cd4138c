"""Gates for rewritten prompts: pure functions over columns, as those for captions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recaption.gates.characters import without_lost_characters
from recaption.gates.kept import kept_words
from recaption.gates.repair import clean, cut_to_sentence, is_cut
from recaption.gates.rules import (
    count_words,
    garbles,
    leaks,
    loops,
    markup,
    options,
    reasonings,
    refusals,
)
from recaption.gates.wrapping import unwrap

Flags = npt.NDArray[np.bool_]

_LABEL = re.compile(
    r"^\W*(rewritten|rewrite|rewritten prompt|upsampled prompt|new prompt|prompt|answer|output)"
    r"\s*:\s*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rewrites:
    """What the gates look at: columns of equal length, and what holds for all rows.

    Attributes:
        texts: after `tidy`.
        finish_reasons: "stop", "length" or None.
        prompts: the originals.
        instruction: what was asked, prompts apart.
    """

    texts: Sequence[str]
    finish_reasons: Sequence[str | None]
    prompts: Sequence[str]
    instruction: str
    min_words: int
    max_words: int


def judge_rewrites(rewrites: Rewrites) -> dict[str, Flags]:
    """(N,) flags of every gate, by name, in their order."""
    words = count_words(rewrites.texts)
    pairs = zip(rewrites.texts, rewrites.finish_reasons, strict=True)
    cut = [reason == "length" and not is_cut(text, reason) for text, reason in pairs]
    return {
        "empty": words == 0,
        "refusal": refusals(rewrites.texts),
        "reasoning": reasonings(rewrites.texts),
        "options": options(rewrites.texts),
        "garbled": garbles(rewrites.texts),
        "prompt_leak": leaks(rewrites.texts, [rewrites.instruction]),
        "loop": loops(rewrites.texts),
        "url_or_markup": markup(rewrites.texts),
        "truncated": np.array(cut, dtype=bool),
        "too_short": words < rewrites.min_words,
        "too_long": words > rewrites.max_words,
        "lost_words": kept_words(rewrites.prompts, rewrites.texts) < 1.0,
    }


def tidy(text: str, finish_reason: str | None, min_words: int) -> str:
    """One line, without a label such as "Rewritten:" or quotes around all of it.

    A text that was cut off ends with its last whole sentence, if that leaves `min_words`.
    """
    line = " ".join(without_lost_characters(clean(text)).split())
    line = unwrap(_LABEL.sub("", line))
    if finish_reason == "length":
        whole = cut_to_sentence(line)
        if whole is not None and len(whole.split()) >= min_words:
            return whole
    return line
