"""The schema of a structured caption, its one serialisation, and what is refused and why.

    {"summary": "...", "objects": [{"name": "ring", "attributes": ["small", "red"],
     "place": "top-left"}], "background": "striped white", "style": "...", "text": ["..."]}

Keys stand in this order and empty ones are left out, so that equal content is equal bytes. What is
read may be anybody's: nothing in it is believed before it is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

from curate.base.characters import REPLACEMENT, encodable
from recaption.gates.characters import readable

Reason = Literal[
    "json_syntax",
    "json_size",
    "json_depth",
    "json_duplicate_key",
    "json_number",
    "json_control",
    "json_schema",
]
"""Why a text is no structured caption: it is no JSON; longer than 20,000 characters; deeper than
the schema; says a key twice; holds a number, which the schema has none of; holds a control or
invisible character; or is JSON of another form."""

MOST_CHARACTERS = 20_000
_DEPTH = 4  # {objects: [{attributes: [...]}]}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_CONTROL_IN_JSON = re.compile(r"[\x00-\x1f]")
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Unread:
    """Why a text could not be read, and where."""

    reason: str
    detail: str = ""


class _RefusedError(ValueError):
    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.unread = Unread(reason, detail)


def _said(text: str) -> str:
    if not any(character.isalnum() for character in text):
        raise ValueError("holds no letter and no digit")
    if text != " ".join(text.split()):
        raise ValueError("is not on one line with single spaces")
    return text


Words = Annotated[str, Field(max_length=400), AfterValidator(_said)]
"""A text on one line that says something."""


@with_config(_STRICT)
class StructuredObject(TypedDict):
    """One object: what it is, how it looks, where it is."""

    name: Words
    attributes: NotRequired[Annotated[list[Words], Field(max_length=20)]]
    place: NotRequired[Words]


@with_config(_STRICT)
class Structured(TypedDict):
    """A structured caption; `objects` holds at least one."""

    summary: NotRequired[Words]
    objects: Annotated[list[StructuredObject], Field(min_length=1, max_length=50)]
    background: NotRequired[Words]
    style: NotRequired[Words]
    text: NotRequired[Annotated[list[Words], Field(max_length=20)]]


KEYS: tuple[str, ...] = tuple(Structured.__annotations__)
OBJECT_KEYS: tuple[str, ...] = tuple(StructuredObject.__annotations__)


@cache
def schema() -> TypeAdapter[Structured]:
    """The schema; `schema().json_schema()` is the same as JSON Schema."""
    return TypeAdapter(Structured)


def serialize(caption: Structured) -> str:
    """The one text of a caption: keys in the schema's order, empty ones left out."""
    return json.dumps(_canonical(caption), ensure_ascii=False, separators=(", ", ": "))


def parse(text: str) -> Structured | Unread:
    """The caption of a text, with empty values left out, or why it is none."""
    try:
        return checked(loaded(text))
    except _RefusedError as refused:
        return refused.unread


def loaded(text: str) -> Any:
    """The JSON value of a text, its size, depth and characters checked.

    Raises:
        ValueError: it is refused (`refusal` tells why).
    """
    if len(text) > MOST_CHARACTERS:
        raise _RefusedError("json_size", f"{len(text):,} characters")
    if (deepest := _depth(text)) > _DEPTH:
        raise _RefusedError("json_depth", f"{deepest} levels")
    try:
        return json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_no_number,
            parse_int=_no_number,
            parse_float=_no_number,
        )
    except json.JSONDecodeError as error:
        if "control character" in error.msg:
            raise _RefusedError("json_control", f"at character {error.pos}") from error
        raise _RefusedError("json_syntax", f"{error.msg} at character {error.pos}") from error


def checked(value: Any) -> Structured:
    """A JSON value as a caption.

    Raises:
        ValueError: it is of another form (`refusal` tells where).
    """
    caption = _canonical(value) if isinstance(value, Mapping) else value
    _refuse_control(caption)
    try:
        return schema().validate_python(caption)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        message = first["msg"].removeprefix("Value error, ")
        raise _RefusedError("json_schema", f"{place}: {message}") from error


def refuse(reason: Reason, detail: str = "") -> ValueError:
    """What to raise for `refusal` to tell."""
    return _RefusedError(reason, detail)


def refusal(error: ValueError) -> Unread:
    """Why `loaded` or `checked` refused."""
    assert isinstance(error, _RefusedError)
    return error.unread


def _canonical(caption: Mapping[str, Any]) -> dict[str, Any]:
    """Keys in order, unknown ones behind them, and without empty values."""
    kept = _ordered(caption, KEYS)
    if isinstance(kept.get("objects"), list):
        kept["objects"] = [
            _ordered(one, OBJECT_KEYS) if isinstance(one, Mapping) else one
            for one in kept["objects"]
        ]
    return kept


def _ordered(values: Mapping[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
    known = {name: values[name] for name in order if values.get(name) not in (None, "", [])}
    return known | {name: value for name, value in values.items() if name not in order}


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _RefusedError("json_duplicate_key", name[:40])
        found[name] = value
    return found


def _no_number(text: str) -> Any:
    raise _RefusedError("json_number", text[:40])


def _refuse_control(value: Any) -> None:
    if isinstance(value, str):
        if readable(value) != value or encodable(value) != value or REPLACEMENT in value:
            raise _RefusedError("json_control", f"in {value[:40]!r}")
    elif isinstance(value, Mapping):
        for name, inner in cast(Mapping[str, Any], value).items():
            _refuse_control(name)
            _refuse_control(inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_control(inner)
