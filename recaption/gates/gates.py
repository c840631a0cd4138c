"""Gates: pure functions over a batch of captions that say what is wrong with each.

Which of them there are, and what their flags mean for a caption, says recaption.gates.registry.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from curate.base.errors import ConfigError
from curate.base.progress import tell
from curate.base.registry import said, tried
from recaption.gates.kept import added_numbers as new_numbers
from recaption.gates.kept import kept_words
from recaption.gates.language import detect_languages, is_other_language
from recaption.gates.registry import DEFAULT_REJECTS, GATES, Gate
from recaption.gates.repair import BANNED_OPENING, clean, is_cut, repair
from recaption.gates.rules import (
    Flags,
    copies,
    count_words,
    garbles,
    leaks,
    loops,
    markup,
    matches,
    options,
    reasonings,
    refusals,
    repeated_4gram_shares,
    zlib_ratios,
)

__all__ = [
    "DEFAULT_REJECTS",
    "GATES",
    "Gate",
    "GateColumns",
    "Verdict",
    "count_words",
    "judge",
    "repeated_4gram_shares",
    "run_gates",
    "zlib_ratios",
]


@dataclass(frozen=True)
class GateColumns:
    """What gates look at: columns of equal length N, and what holds for all rows.

    Attributes:
        texts: the captions, as the captioner said them.
        finish_reasons: "stop", "length" or None.
        alt_texts: the samples' alt texts; None where there is none.
        instructions: every text that the captioner was given besides alt texts.
        min_words: fewer words than this are too short.
        languages: ISO code of the language that each caption should have, "" for any; empty where
            none is expected.
        advantages: by how much each caption fits its picture better than the alt text does, as
            cosine; NaN where nobody knows, empty where nothing was compared.
        max_words: more words than this are too long; 0 is no limit.
        sources: all that each caption was made from; empty where it was made from none.
    """

    texts: Sequence[str]
    finish_reasons: Sequence[str | None]
    alt_texts: Sequence[str | None]
    instructions: Sequence[str] = ()
    min_words: int = 1
    languages: Sequence[str] = ()
    advantages: Sequence[float] | npt.NDArray[np.float32] = ()
    max_words: int = 0
    sources: Sequence[str] = ()

    def rows(self, rows: Sequence[int], texts: Sequence[str]) -> GateColumns:
        """Some rows of it, with these texts."""
        return replace(
            self,
            texts=texts,
            finish_reasons=[self.finish_reasons[row] for row in rows],
            alt_texts=[self.alt_texts[row] for row in rows],
            languages=[self.languages[row] for row in rows] if len(self.languages) else (),
            sources=[self.sources[row] for row in rows] if self.sources else (),
            advantages=[self.advantages[row] for row in rows] if len(self.advantages) else (),
        )


@dataclass(frozen=True)
class Verdict:
    """The judgement of a batch, as columns.

    Attributes:
        texts: the captions after repair.
        flags: every gate that spoke before or after repair, in the gates' order.
        reasons: the first rejecting gate that speaks after repair; None where accepted.
        retry: (N,) rejected rows that another try may help.
    """

    texts: list[str]
    flags: list[list[str]]
    reasons: list[str | None]
    retry: Flags


# ---- the checks -----------------------------------------------------------------------------


def empty(columns: GateColumns) -> Flags:
    """No letter and no digit."""
    return count_words(columns.texts) == 0


def too_short(columns: GateColumns) -> Flags:
    """Fewer words than the kind needs."""
    return count_words(columns.texts) < columns.min_words


def too_long(columns: GateColumns) -> Flags:
    """More words than the kind has; where it has no limit, nothing is."""
    words = count_words(columns.texts)
    return words > columns.max_words if columns.max_words else np.zeros(len(words), dtype=bool)


def added_numbers(columns: GateColumns) -> Flags:
    """A number that stands in none of the captions that were merged."""
    return new_numbers(columns.texts, columns.sources or [""] * len(columns.texts))


def added_words(columns: GateColumns) -> Flags:
    """A word that carries meaning and stands in none of the captions that were merged."""
    if not columns.sources:
        return np.zeros(len(columns.texts), dtype=bool)
    return kept_words(columns.texts, columns.sources) < 1.0


def truncated(columns: GateColumns) -> Flags:
    """The token limit cut the caption off."""
    return np.array([reason == "length" for reason in columns.finish_reasons], dtype=bool)


def loop(columns: GateColumns) -> Flags:
    """The caption repeats itself: in all, or in its last words."""
    return loops(columns.texts)


def refusal(columns: GateColumns) -> Flags:
    """The captioner speaks about itself, asks for a picture or sees nothing; or an error."""
    return refusals(columns.texts)


def reasoning(columns: GateColumns) -> Flags:
    """The captioner thinks aloud, before its answer or instead of it."""
    return reasonings(columns.texts)


def several(columns: GateColumns) -> Flags:
    """Several captions to choose from."""
    return options(columns.texts)


def garbled(columns: GateColumns) -> Flags:
    """A character was lost; one that stood alone is mended."""
    return garbles(columns.texts)


def banned_opening(columns: GateColumns) -> Flags:
    """It opens with a phrase about the picture and not with its subject."""
    return matches(columns.texts, BANNED_OPENING)


def prompt_leak(columns: GateColumns) -> Flags:
    """It repeats the instruction, a marker of the chat format, or talks about its task."""
    return leaks(columns.texts, columns.instructions)


def language(columns: GateColumns) -> Flags:
    """It is long enough to tell, and surely in another language than expected."""
    flags = np.zeros(len(columns.texts), bool)
    rows = [row for row, expected in enumerate(columns.languages) if expected]
    texts = [columns.texts[row] for row in rows]
    for row, text, found in zip(rows, texts, detect_languages(texts), strict=True):
        flags[row] = is_other_language(columns.languages[row], found, text)
    return flags


def url_or_markup(columns: GateColumns) -> Flags:
    """It holds HTML, Markdown or a web address. An address in quotes is text in the picture."""
    return markup(columns.texts)


def alt_copy(columns: GateColumns) -> Flags:
    """It is the alt text, word for word or nearly."""
    return copies(columns.texts, columns.alt_texts)


def below_alt_text(columns: GateColumns) -> Flags:
    """CLIP finds that the alt text fits the picture better."""
    if not len(columns.advantages):
        return np.zeros(len(columns.texts), bool)
    # A NaN is not below anything.
    return np.asarray(np.asarray(columns.advantages, np.float32) < 0)


def near_duplicate(columns: GateColumns) -> Flags:
    """Never speaks here: other captions decide, see recaption.captioning.near_duplicates."""
    return np.zeros(len(columns.texts), bool)


def run_gates(columns: GateColumns, gates: Mapping[str, Gate] = GATES) -> dict[str, Flags]:
    """(N,) flags of every gate, by name.

    A caption for which a gate of the user's own raises counts as flagged: nobody judged it good.

    Raises:
        ConfigError: such a gate gives another number of flags than there are captions.
    """
    return {
        name: gate.function()(columns) if name in GATES else _of_own(name, gate, columns)
        for name, gate in gates.items()
    }


_told: set[str] = set()


def _of_own(name: str, gate: Gate, columns: GateColumns) -> Flags:
    count = len(columns.texts)
    given = tried(lambda: np.asarray(gate.function()(columns), bool))
    if isinstance(given, Exception):
        if count == 1:
            if name not in _told:  # once a process: a gate that always raises must be noticed
                _told.add(name)
                tell(f"the gate {name} raised {said(given)}; such captions count as flagged")
            return np.ones(1, bool)
        rows = [columns.rows([row], [columns.texts[row]]) for row in range(count)]
        return np.concatenate([_of_own(name, gate, row) for row in rows] or [np.zeros(0, bool)])
    if given.shape != (count,):
        raise ConfigError(
            f"The gate {name} must give {count} flags for {count} captions; it gave an array of "
            f"shape {given.shape}."
        )
    return given


def judge(
    columns: GateColumns,
    rejects: Collection[str] = DEFAULT_REJECTS,
    gates: Mapping[str, Gate] = GATES,
    repaired: Sequence[str] | None = None,
) -> Verdict:
    """Flag, repair, flag again, decide.

    Args:
        columns: raw captions.
        rejects: names of the gates that reject.
        gates: more gates than the built-in ones may be given.
        repaired: the captions after `repair`, where the caller has them.
    """
    if repaired is None:
        repaired = repair(columns.texts, columns.finish_reasons, columns.min_words)
    # Quotes around all of an answer would hide it from gates that leave out what is quoted.
    columns = replace(columns, texts=[clean(text) for text in columns.texts])
    before = run_gates(columns, gates)
    after = _after_repair(columns, repaired, before, gates)
    rows = range(len(repaired))
    rejecting = [name for name in gates if name in rejects]
    reasons = [next((name for name in rejecting if after[name][row]), None) for row in rows]
    return Verdict(
        texts=list(repaired),
        flags=[[n for n in gates if before[n][row] or after[n][row]] for row in rows],
        reasons=reasons,
        retry=np.array(
            [reason is not None and gates[reason].retry_helps for reason in reasons], dtype=bool
        ),
    )


def _after_repair(
    columns: GateColumns,
    repaired: Sequence[str],
    before: Mapping[str, Flags],
    gates: Mapping[str, Gate],
) -> dict[str, Flags]:
    """The flags after repair; only captions that it changed or closed are checked again."""
    pairs = zip(repaired, columns.finish_reasons, strict=True)
    finished = ["stop" if is_cut(text, reason) else reason for text, reason in pairs]
    changed = [
        row
        for row, text in enumerate(repaired)
        if text != columns.texts[row] or finished[row] != columns.finish_reasons[row]
    ]
    again = replace(
        columns.rows(changed, [repaired[row] for row in changed]),
        finish_reasons=[finished[row] for row in changed],
    )
    after = {name: flags.copy() for name, flags in before.items()}
    if not changed:  # compiling the patterns alone takes milliseconds
        return after
    for name, flags in run_gates(again, gates).items():
        after[name][changed] = flags if gates[name].mended else flags | before[name][changed]
    return after
