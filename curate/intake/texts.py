"""The texts of one picture: none, one, or a list of several, wherever an input keeps them.

The first text is the row's alt text; all of them, where they are several, stand in `alt_texts`.
Nulls, blank texts and repeats in a list say nothing and are left out. An object is no text: the
user names the key that holds it, as in `--text-column caption.en`, which also picks from each
object of a list.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from curate.intake.columns import TEXT_COLUMNS, find_column

_MOST_KEYS = 10  # that a sentence names
_DEEPEST = 3  # names of objects inside objects that are listed


class NoTextError(ValueError):
    """A value that is neither a text nor a list of texts; one sentence says what to do."""


def texts_of(value: Any, column: str | None) -> list[str]:
    """The texts of a row's value; empty for null, an empty list and a list of nulls.

    Numbers become their digits. A list of blank texts alone is one empty text.

    Args:
        column: where the value came from, for the sentence.

    Raises:
        NoTextError: an object, a list of objects, or a list of lists.
    """
    if value is None or isinstance(value, str):
        return [] if value is None else [value]
    if isinstance(value, Mapping):
        raise _unpicked(value, column, "objects")
    if not isinstance(value, list | tuple):
        return [said] if (said := _written(value)) is not None else []
    for part in value:
        if isinstance(part, Mapping):
            raise _unpicked(part, column, "lists of objects")
        if isinstance(part, list | tuple):
            raise NoTextError(
                f"the text column {column!r} holds lists of lists; give one list of texts a row"
            )
    said_all = [text for part in value if (text := _written(part)) is not None]
    return several(said_all) or ([""] if said_all else [])


def several(texts: Sequence[str]) -> list[str]:
    """Without blank ones and repeats, in the order in which they came."""
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _written(value: Any) -> str | None:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool):
        return json.dumps(value)
    return None if isinstance(value, float) and math.isnan(value) else str(value)


def _unpicked(found: Mapping[str, Any], column: str | None, what: str) -> NoTextError:
    keys = [str(key) for key in found]
    shown = ", ".join(keys[:_MOST_KEYS]) + (", ..." if len(keys) > _MOST_KEYS else "")
    said = [key for key in keys if isinstance(found[key], str)]
    best = find_column(said, ("raw", "en", *TEXT_COLUMNS)) or (said or keys or ["KEY"])[0]
    return NoTextError(
        f"the text column {column!r} holds {what} with the keys {shown or 'none'}; name the one "
        f"that holds the text, as in --text-column {column}.{best}"
    )


# ---- names of keys inside objects --------------------------------------------------------------


def value_at(fields: Mapping[str, Any], name: str | None) -> Any:
    """The value of a column, or of a key inside it: "caption.en", also of a list of objects."""
    if name is None:
        return None
    if name in fields:
        return fields[name]
    column, dot, rest = name.partition(".")
    while dot:
        if column in fields:
            return _inside(fields[column], rest)
        more, dot, rest = rest.partition(".")
        column = f"{column}.{more}"
    return None


def _inside(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value_at(value, name)
    return [_inside(part, name) for part in value] if isinstance(value, list) else None


def names_inside(fields: Mapping[str, Any], deep: int = 1) -> Iterator[str]:
    """The names by which `value_at` finds what lies inside a row's objects."""
    for name, value in fields.items():
        found = value[0] if isinstance(value, list) and value else value
        if isinstance(found, Mapping):
            yield from (f"{name}.{key}" for key in found)
            if deep < _DEEPEST:
                yield from (f"{name}.{inner}" for inner in names_inside(found, deep + 1))


def find_name(fields: Mapping[str, Any], usual: Sequence[str]) -> str | None:
    """As `find_column`, also for names of keys inside objects."""
    found = find_column(fields, usual)
    if found is None and any("." in name for name in usual):
        found = find_column(names_inside(fields), usual)
    return found


# ---- lists that are written as text ------------------------------------------------------------

_QUOTED = r"""(?:'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+")"""
_LISTED = re.compile(
    rf"\[\s*(?:{_QUOTED}|None|null|nan)(?:[\s,]+(?:{_QUOTED}|None|null|nan))*+[\s,]*\]", re.DOTALL
)
_ONE = re.compile(_QUOTED, re.DOTALL)


def with_spelled(fields: Mapping[str, Any], name: str | None) -> Mapping[str, Any]:
    """A row of CSV or TSV, with the list or object that its text column spells."""
    if name is None:
        return fields
    column = find_column(fields, (name.lower(), name.lower().partition(".")[0]))
    if column is None:
        return fields
    return {**fields, column: spelled(fields[column])}


def spelled(cell: Any) -> Any:
    """A cell of CSV or TSV that spells a list of texts, or an object, as what it spells.

    CSV has no lists: json.dumps writes `["a", "b"]`, pandas `['a', 'b']`, NumPy `['a' 'b']`, and
    none of the three is a caption.
    """
    if not isinstance(cell, str):
        return cell
    text = cell.strip()
    if text[:1] == "[" and text[-1:] == "]":
        return _listed(text, cell)
    if text[:1] == "{" and text[-1:] == "}":
        found = _parsed(text)
        return found if isinstance(found, dict) and found else cell
    return cell


def _listed(text: str, cell: str) -> Any:
    found = None if _LISTED.fullmatch(text) else _parsed(text)
    if isinstance(found, list):  # [1] and [2, 3] are notes in a text
        numbers = found and all(isinstance(part, int | float) for part in found)
        return cell if numbers else found
    if _LISTED.fullmatch(text) is None:
        return cell
    # One by one: Python would join 'a' 'b' into one text.
    parts = [_parsed(one) for one in _ONE.findall(text)]
    return parts if all(isinstance(part, str) for part in parts) else cell


def _parsed(text: str) -> Any:
    """JSON or a literal of Python as a value; None where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():  # of odd escapes
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
