"""Gates: pure functions over a batch of captions that say what is wrong with each.

A gate that `rejects` keeps a caption out of training; one that does not only marks it. Where
`retry_helps`, asking again with another seed and a higher temperature may give a good caption
(asking greedily again repeats the same loop). Which gates reject is a setting; what stands here
is its default.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recaption.repair import BANNED_OPENING, is_cut, repair

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class GateColumns:
    """What gates look at: columns of equal length N, and what holds for all rows.

    Attributes:
        texts: the captions.
        finish_reasons: "stop", "length" or None.
        alt_texts: the samples' alt texts; None where there is none.
        instructions: every text that the captioner was given besides alt texts.
        min_words: fewer words than this are too short.
    """

    texts: Sequence[str]
    finish_reasons: Sequence[str | None]
    alt_texts: Sequence[str | None]
    instructions: Sequence[str] = ()
    min_words: int = 1


@dataclass(frozen=True)
class Gate:
    """One check and what its flag means for a caption."""

    check: Callable[[GateColumns], Flags]
    rejects: bool
    retry_helps: bool
    meaning: str


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

# A Han or kana character counts as a word: these scripts put no spaces between words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}"
_WORD = rf"[{_UNSPACED}]|[^\s{_UNSPACED}]*[\pL\pN][^\s{_UNSPACED}]*"

# Measured on good descriptive captions and on loops: zlib ratio 1.5 to 1.9 against 10.8 to 22.9,
# share of repeated 4-grams 0 to 0.01 against 0.92 to 0.99. The limits lie between, nearer the good.
LOOP_ZLIB_RATIO = 4.0
LOOP_REPEATED_SHARE = 0.4
# A loop often starts behind a good beginning, so the last words are also judged alone.
LOOP_TAIL_WORDS = 32

_REFUSAL = (
    r"(?i)^\W*(i'?m sorry|i am sorry|sorry, (but )?i|i apologi[sz]e|unfortunately, i|"
    r"i (can't|cannot|can not|could not|couldn't|won't|am unable|am not able|do not see|"
    r"don't see)|i'm (unable|not able)|(there is|i see) no (image|picture)|"
    r"no (image|picture) (was|is|has been) (provided|given|attached)|"
    r"please (provide|upload|share|attach) )"
    r"|\bas an ai\b|\bas a (large )?language model\b|"
    r"\bi('m| am) (unable|not able) to (view|see|identify|describe|help|assist|process)|"
    r"\b(cannot|can't|unable to) (assist|help) with (that|this)"
)
_LEAK = (
    r"<\|[^|>]{1,40}\|>|\[/?INST\]|</?s>|<unk>|<pad>|<image>|"
    r"(?i:^\W*(user|human|assistant|system)\s*:)|\b(USER|ASSISTANT|SYSTEM):|"
    r"(?i:\bimaginary content\b|\bas (requested|instructed)\b|\balt[- ]text\b|"
    r"\b(the|your) (given|provided) (caption|prompt|instructions?|text description)\b)"
)
_QUOTED = r"\"[^\"]*\"|“[^”]*”|«[^»]*»|(^|\s)'[^']*'"
_URL = r"(?i)https?:/|www\.\w|\b[\w-]+\.(com|org|net|html?|php|jpe?g|png|gif|webp)\b"
_MARKUP = (
    r"</?[a-zA-Z][^<>]*>|```|\*\*|__\w|(?m:^\s*#{1,6}\s)|(?m:^\s*([-*•]|\d+[.)])\s+\S)|"
    r"\]\(|&(amp|quot|lt|gt|nbsp|#\d+);|^\s*[\[{]\s*\""
)
# Four instruction words in a row occur by chance, six do not.
LEAK_WORDS = 6


def count_words(texts: Sequence[str]) -> npt.NDArray[np.int32]:
    """Words of each text: runs between spaces that hold a letter or digit."""
    counts = pc.count_substring_regex(pa.array(texts, pa.string()), _WORD)
    words: npt.NDArray[np.int32] = counts.to_numpy(zero_copy_only=False).astype(np.int32)
    return words


def zlib_ratios(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Length of each text's UTF-8 bytes over their zlib length; high where it repeats itself."""
    encoded = [text.encode() for text in texts]
    return np.array([len(raw) / len(zlib.compress(raw, 6)) for raw in encoded], dtype=np.float64)


def repeated_4gram_shares(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Share of each text's word 4-grams that occurred before in it; 0 below five words."""
    return np.array([_repeated_share(text.lower().split()) for text in texts], dtype=np.float64)


def empty(columns: GateColumns) -> Flags:
    """No letter and no digit."""
    return count_words(columns.texts) == 0


def too_short(columns: GateColumns) -> Flags:
    """Fewer words than the kind needs."""
    return count_words(columns.texts) < columns.min_words


def truncated(columns: GateColumns) -> Flags:
    """The token limit cut the caption off."""
    return np.array([reason == "length" for reason in columns.finish_reasons], dtype=bool)


def loop(columns: GateColumns) -> Flags:
    """The caption repeats itself: in all, or in its last words."""
    tails = [" ".join(text.split()[-LOOP_TAIL_WORDS:]) for text in columns.texts]
    looping: Flags = (
        (zlib_ratios(columns.texts) >= LOOP_ZLIB_RATIO)
        | (repeated_4gram_shares(columns.texts) >= LOOP_REPEATED_SHARE)
        | (repeated_4gram_shares(tails) >= LOOP_REPEATED_SHARE)
    )
    return looping


def refusal(columns: GateColumns) -> Flags:
    """The captioner speaks about itself or asks for a picture."""
    return _matches(columns.texts, _REFUSAL)


def banned_opening(columns: GateColumns) -> Flags:
    """It opens with a phrase about the picture and not with its subject."""
    return _matches(columns.texts, BANNED_OPENING)


def prompt_leak(columns: GateColumns) -> Flags:
    """It repeats the instruction, or a marker of the chat format."""
    shingles: set[tuple[str, ...]] = set()
    for instruction in columns.instructions:
        shingles.update(_grams(_plain(instruction).split(), LEAK_WORDS))
    echoes = [
        not shingles.isdisjoint(_grams(_plain(text).split(), LEAK_WORDS)) if shingles else False
        for text in columns.texts
    ]
    return _matches(columns.texts, _LEAK) | np.array(echoes, dtype=bool)


def url_or_markup(columns: GateColumns) -> Flags:
    """It holds HTML, Markdown or a web address. An address in quotes is text in the picture."""
    unquoted = pc.replace_substring_regex(pa.array(columns.texts, pa.string()), _QUOTED, " ")
    return _matches(columns.texts, _MARKUP) | _matches(unquoted, _URL)


def alt_copy(columns: GateColumns) -> Flags:
    """It is the alt text, word for word."""
    pairs = zip(columns.texts, columns.alt_texts, strict=True)
    return np.array([bool(alt) and _plain(text) == _plain(alt or "") for text, alt in pairs], bool)


GATES: Mapping[str, Gate] = {
    "empty": Gate(empty, True, True, "no letter and no digit"),
    "refusal": Gate(refusal, True, True, "the captioner refuses or speaks about itself"),
    "prompt_leak": Gate(prompt_leak, True, True, "repeats the instruction or chat markers"),
    "loop": Gate(loop, True, True, "repeats itself"),
    "url_or_markup": Gate(url_or_markup, True, True, "HTML, Markdown or an unquoted web address"),
    "truncated": Gate(truncated, True, True, "cut off, and holds no whole sentence"),
    "too_short": Gate(too_short, True, True, "fewer words than its kind needs"),
    "banned_opening": Gate(banned_opening, False, False, "opened with words about the picture"),
    "alt_copy": Gate(alt_copy, False, False, "equals the alt text"),
}
"""All gates; the first rejecting one that speaks is a caption's reason."""

DEFAULT_REJECTS: tuple[str, ...] = tuple(name for name, gate in GATES.items() if gate.rejects)


def run_gates(columns: GateColumns, gates: Mapping[str, Gate] = GATES) -> dict[str, Flags]:
    """(N,) flags of every gate, by name."""
    return {name: gate.check(columns) for name, gate in gates.items()}


def judge(
    columns: GateColumns,
    rejects: Collection[str] = DEFAULT_REJECTS,
    gates: Mapping[str, Gate] = GATES,
) -> Verdict:
    """Flag, repair, flag again, decide.

    Args:
        columns: raw captions.
        rejects: names of the gates that reject.
        gates: more gates than the built-in ones may be given.
    """
    before = run_gates(columns, gates)
    repaired = repair(columns.texts, columns.finish_reasons, columns.min_words)
    after = _after_repair(columns, repaired, before, gates)
    rows = range(len(repaired))
    rejecting = [name for name in gates if name in rejects]
    reasons = [next((name for name in rejecting if after[name][row]), None) for row in rows]
    return Verdict(
        texts=repaired,
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
        columns,
        texts=[repaired[row] for row in changed],
        finish_reasons=[finished[row] for row in changed],
        alt_texts=[columns.alt_texts[row] for row in changed],
    )
    after = {name: flags.copy() for name, flags in before.items()}
    for name, flags in run_gates(again, gates).items():
        after[name][changed] = flags
    return after


def _matches(texts: Sequence[str] | pa.Array, pattern: str) -> Flags:
    array = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())
    # Typographic apostrophes would hide "I’m sorry".
    straight = pc.replace_substring(array, "’", "'")
    found = pc.match_substring_regex(straight, pattern)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


def _plain(text: str) -> str:
    """Lower case, letters and digits only, single spaces."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _grams(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]


def _repeated_share(words: Sequence[str]) -> float:
    grams = _grams(words, 4)
    return 1.0 - len(set(grams)) / len(grams) if len(grams) > 1 else 0.0
