"""Which gates there are, and what a gate's flag means for a caption. Imports none of them.

A gate that `rejects` keeps a caption out of training; one that does not only marks it. Where
`retry_helps`, asking again with another seed and a higher temperature may give a good caption
(asking greedily again repeats the same loop). Which gates reject is a setting; what stands here
is its default.

A gate of one's own is a Gate in a module: `--gates my_package.gates:watermark`, or an entry point
of the group `caption_lab.gates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from curate.base.errors import ConfigError
from curate.base.registry import load


@dataclass(frozen=True)
class Gate:
    """One check and what its flag means for a caption.

    Attributes:
        check: GateColumns -> (N,) bool; a built-in one is the name of a function in
            recaption.gates.gates, so that settings can name gates without loading them.
        mended: whether repair may take the fault away; where not, what the raw text shows stays.
    """

    check: str | Callable[[Any], Any]
    rejects: bool
    retry_helps: bool
    meaning: str
    mended: bool = True

    def function(self) -> Callable[[Any], Any]:
        """The check; its module is imported only now."""
        if not isinstance(self.check, str):
            return self.check
        builtin = {self.check: f"recaption.gates.gates:{self.check}"}
        return cast(Callable[[Any], Any], load("gates", self.check, builtin))


NEAR_DUPLICATE = "near_duplicate"
TOO_LONG = "too_long"
ADDED_NUMBERS = "added_numbers"

GATES: Mapping[str, Gate] = {
    "empty": Gate("empty", True, True, "no letter and no digit"),
    "refusal": Gate(
        "refusal",
        True,
        True,
        "refuses, speaks about itself, sees nothing or reports an error",
        False,
    ),
    "reasoning": Gate("reasoning", True, True, "thinks aloud", False),
    "options": Gate("several", True, True, "several captions to choose from", False),
    "prompt_leak": Gate(
        "prompt_leak",
        True,
        True,
        "repeats the instruction, chat markers or turns, or talks about its task",
        False,
    ),
    "garbled": Gate("garbled", True, True, "a character of a word was lost"),
    "loop": Gate("loop", True, True, "repeats itself"),
    "url_or_markup": Gate(
        "url_or_markup",
        True,
        True,
        "HTML, Markdown, JSON or an unquoted web address",
        False,
    ),
    "language": Gate("language", True, True, "surely in another language than expected"),
    "truncated": Gate("truncated", True, True, "cut off, and holds no whole sentence"),
    "too_short": Gate("too_short", True, True, "fewer words than its kind needs"),
    TOO_LONG: Gate("too_long", False, True, "more words than its kind may have"),
    "below_alt_text": Gate(
        "below_alt_text",
        False,
        True,
        "fits the picture worse than the alt text, by CLIP",
    ),
    "banned_opening": Gate("banned_opening", False, False, "opened with words about the picture"),
    "alt_copy": Gate("alt_copy", False, False, "equals the alt text, or nearly"),
    ADDED_NUMBERS: Gate(
        "added_numbers", False, True, "a number that no caption holds of which it was made"
    ),
    "added_words": Gate(
        "added_words", False, True, "a word that no caption holds of which it was made"
    ),
    NEAR_DUPLICATE: Gate(
        "near_duplicate",
        False,
        False,
        "nearly repeats the caption of another picture",
    ),
}
"""All gates; the first rejecting one that speaks is a caption's reason."""

DEFAULT_REJECTS: tuple[str, ...] = tuple(name for name, gate in GATES.items() if gate.rejects)


def with_own(names: Sequence[str]) -> dict[str, Gate]:
    """All gates: the built-in ones, and those that the user names.

    Raises:
        ConfigError: a name that stands for no Gate, or is a built-in one's.
    """
    gates = dict(GATES)
    for name in names:
        if name in GATES:
            raise ConfigError(f"The gate {name!r} is built in and always asked; leave it out.")
        gate = load("gates", name, {})
        if not isinstance(gate, Gate):
            raise ConfigError(f"{name} is no gate: it must be a recaption.gates.registry.Gate.")
        gates[name] = gate
    return gates
