"""One prompt template: its words, its variables, and what of them a row is shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curate.base.errors import ConfigError
from curate.base.kinds import check_kind
from recaption.gates.placeholders import without_placeholders

_VARIABLE = re.compile(r"\{(\w+)\}")
ALT_TEXT = "alt_text"
STRUCTURED = "structured"
"""The kind whose captions are JSON, of the schema in recaption.structured.schema."""
LANGUAGE = "language"
# Texts of the web run to kilobytes; a hint needs their first words only.
MAX_VALUE_CHARACTERS = 300

ALT_HINT = (
    'A web page shows this picture with the text "{alt_text}". Use it for names that you cannot '
    "see, and ignore what the picture contradicts."
)


@dataclass(frozen=True)
class Lengths:
    """How long captions of a kind are, where no setting says otherwise."""

    min_words: int
    max_words: int
    max_new_tokens: int


@dataclass(frozen=True)
class PromptTemplate:
    """What a captioner is asked for one kind of caption.

    Attributes:
        name: the caption's kind, such as "short".
        version: raised whenever the wording changes on purpose.
        text: the user turn; `{name}` stands for a variable, `{alt_text}` for the row's alt text.
        system: the system turn, the same for all rows; empty means none.
        alt_hint: sentence added behind the text where alt texts are shown and the row has one.
        hints: further sentences; each is added where all its variables have a value.
        variables: values of the constants in the text, such as {"language": "German"}; empty means
            no value.
        columns: variables that differ from row to row. A row without a value of its own takes the
            constant of that name, if there is one.
        lengths: None where nothing is known.
        most_characters: of a column's value that are shown.
    """

    name: str
    version: int
    text: str
    system: str = ""
    alt_hint: str = ALT_HINT
    hints: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    lengths: Lengths | None = None
    most_characters: int = MAX_VALUE_CHARACTERS

    def __post_init__(self) -> None:
        check_kind(self.name)
        if ALT_TEXT in {*self.variables, *self.columns}:
            raise ConfigError(
                f"alt_text is each sample's own text, so the prompt template {self.name!r} cannot "
                f"have a variable of that name."
            )
        known = {*self.variables, *self.columns, ALT_TEXT}
        for variable in self.used:
            if variable not in known:
                raise ConfigError(
                    f"The prompt template {self.name!r} uses {{{variable}}}, which is none of "
                    f"its variables ({', '.join(sorted(known))})."
                )
        for variable in _names(self.system):
            if variable in (*self.columns, ALT_TEXT):
                raise ConfigError(
                    f"The system turn of the prompt template {self.name!r} uses {{{variable}}}, "
                    f"which differs from row to row; put it into the text."
                )

    @property
    def used(self) -> list[str]:
        """Every variable that stands in one of its texts, in order, once."""
        parts = (self.text, self.system, self.alt_hint, *self.hints)
        return list(dict.fromkeys(name for part in parts for name in _names(part)))

    @property
    def id(self) -> str:
        """Name and version, such as "short@1"."""
        return f"{self.name}@{self.version}"

    @property
    def sha256(self) -> str:
        """Hex sha256 of every word that can reach the captioner, apart from the rows' values."""
        constants = {name: value for name, value in self.variables.items() if value}
        possible = {*constants, *self.columns}
        hints = [hint for hint in self.hints if possible.issuperset(_names(hint))]
        words = [self.text, self.system, self.alt_hint, constants, *([hints] if hints else [])]
        text = json.dumps(words, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def shows_alt_text(self, alt_text: str | None, show_alt_text: bool) -> bool:
        """Whether the prompt of a row with this alt text would contain it."""
        return bool(alt_text and alt_text.strip()) and (
            "{alt_text}" in self.text or (show_alt_text and bool(self.alt_hint))
        )

    def render(
        self,
        alt_texts: Sequence[str | None],
        show_alt_text: bool = False,
        values: Sequence[Mapping[str, str]] = (),
    ) -> list[str]:
        """The user turn of each row, in order.

        Args:
            alt_texts: one a row; None or blank adds no hint.
            show_alt_text: whether the hint is added where the row has an alt text.
            values: of the template's columns, one mapping a row; empty where nothing has any.
        """
        rows = values or [{}] * len(alt_texts)
        prompts = []
        for alt_text, row in zip(alt_texts, rows, strict=True):
            known = {**self._known(row), ALT_TEXT: shown_value(alt_text or "")}
            parts = [self.text]
            if show_alt_text and known[ALT_TEXT] and ALT_TEXT not in _names(self.text):
                parts += filter(None, [self.alt_hint])
            parts += [hint for hint in self.hints if all(known[name] for name in _names(hint))]
            prompts.append(" ".join(_fill(part, known) for part in parts))
        return prompts

    def render_system(self) -> str:
        """The system turn, the same for every row."""
        return _fill(self.system, self._known({}))

    def shown(self, row: Mapping[str, str]) -> dict[str, str]:
        """Variable -> the value that a row with these column values is shown, without alt text."""
        known = self._known(row)
        hints = [h for h in self.hints if all(known.get(name, "x") for name in _names(h))]
        names = {name for part in (self.text, self.system, *hints) for name in _names(part)}
        return {name: known[name] for name in sorted(names & known.keys()) if known[name]}

    def instructions(self) -> list[str]:
        """Its words without any variable's value, in pieces: what no caption should repeat.

        A value is left out because a caption may well say it: it was shown to be used.
        """
        parts = (self.text, self.system, self.alt_hint, *self.hints)
        pieces = [piece.strip() for part in parts for piece in re.split(r"\{\w+\}", part)]
        return [piece for piece in pieces if piece]

    def _known(self, row: Mapping[str, str]) -> dict[str, str]:
        own = {
            name: shown_value(row[name], self.most_characters)
            for name in self.columns
            if row.get(name)
        }
        return {**dict.fromkeys(self.columns, ""), **self.variables, **own}


def shown_value(value: str, most: int = MAX_VALUE_CHARACTERS) -> str:
    """A value as a prompt shows it: on one line, its first characters, no placeholder."""
    return " ".join(without_placeholders(value).split())[:most]


def _names(text: str) -> list[str]:
    return _VARIABLE.findall(text)


def _fill(text: str, values: Mapping[str, str]) -> str:
    # One pass, so braces inside a value are never read as variables.
    return _VARIABLE.sub(lambda found: values[found.group(1)], text)
