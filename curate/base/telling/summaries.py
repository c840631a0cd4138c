"""What commands return: numbers that print themselves, in a notebook as a table of escaped text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from html import escape
from typing import Any

from curate.base.telling.words import visible

_MOST_ROWS = 20


class Summary:
    """Base of the dataclasses that commands return; `print` shows what the command prints."""

    def text(self) -> str:
        """What the command prints; of one that no command prints alone, its fields."""
        return "\n".join(f"{_words(f.name)}: {getattr(self, f.name)}" for f in _shown(self))

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """The fields that are not private, as a table."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(self).__name__)
        return f"<b>{escape(name)}</b>{_table(self)}"


def _table(value: Any) -> str:
    rows = [
        f"<tr><th style='text-align:left'>{escape(_words(field.name))}</th>"
        f"<td style='text-align:left'>{_cell(getattr(value, field.name))}</td></tr>"
        for field in _shown(value)
    ]
    return f"<table>{''.join(rows)}</table>"


def _shown(value: Any) -> list[Field[Any]]:
    return [one for one in fields(value) if not one.name.startswith("_") and one.repr]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if is_dataclass(value):
        return _table(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_cell(str(name))} {_cell(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _rows(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = escape(visible(str(value)))
    return f"<pre>{text}</pre>" if "\n" in text else text


def _rows(values: Sequence[Any]) -> str:
    """A row each: of dataclasses or mappings under their names, of anything else as it is."""
    shown = values[:_MOST_ROWS]
    more = f"<br>and {len(values) - len(shown):,} more" if len(values) > len(shown) else ""
    named = [
        {field.name: getattr(one, field.name) for field in fields(one)}
        if is_dataclass(one)
        else one
        for one in shown
    ]
    if not named or not all(isinstance(one, Mapping) for one in named):
        return "<br>".join(_cell(one) for one in shown) + more
    names = list(named[0])
    head = "".join(f"<th>{escape(_words(str(name)))}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(one.get(name))}</td>' for name in names)}</tr>" for one in named
    )
    return f"<table><tr>{head}</tr>{body}</table>{more}"
