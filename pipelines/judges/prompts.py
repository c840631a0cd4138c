"""What every arm is asked to draw, and files of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.progress import tell
from recaption.prompts.file import Row, rows_of

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.string()),  # of all that follows
        ("form", pa.string()),  # descriptive, short, upsampled, alt, or a file's own
        ("wording", pa.string()),  # captioner, varied, place-first, typed; "own" where none is said
        ("intent_id", pa.string()),  # the same in every form and wording of one intent
        ("prompt", pa.string()),
        ("intent", pa.string()),  # what pictures are scored against: a scene as JSON, or a text
        ("category", pa.string()),
        ("questions", pa.list_(pa.string())),  # a right picture answers each with yes
        ("held_out", pa.bool_()),  # asks for a colour-shape pair that no training picture shows
    ]
)
"""Texts are distinct within a form and wording."""
OWN = "own"
"""Form and wording of a file that names none."""
_GENEVAL = ("tag", "include", "prompt")
_TEXTS = ("form", "wording", "id", "intent", "category")


def prompts_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows in the schema PROMPTS: `prompt_id` is made, and what is missing is empty."""
    made = []
    for row in rows:
        own = {name: row.get(name) for name in PROMPTS.names if name != "prompt_id"}
        own |= {"questions": own["questions"] or [], "held_out": bool(own["held_out"])}
        made.append({"prompt_id": fingerprint(own), **own})
    return pa.Table.from_pylist(made, schema=PROMPTS)


def read_prompts(path: Path) -> pa.Table:
    """Prompts of a .txt, .jsonl, .csv or .parquet file, in the schema PROMPTS.

    Columns: prompt; form (or prompt_form), wording, id (the same intent in several forms), intent,
    category, questions (a list, in a CSV as JSON), held_out. GenEval's metadata (tag, include,
    exclude, prompt) is read as well: its tag is the category, its record the intent. Texts that
    stand twice in a form and wording count once, and that is told.

    Raises:
        ConfigError: it is missing, unreadable, lacks its column, or a value is of another kind.
    """
    rows = read_rows(path)
    if not any("prompt" in row for row in rows):
        raise ConfigError(f"The prompt file {path} needs a column named 'prompt' and one row.")
    prompts = [_prompt(row, number, path) for number, row in enumerate(rows, start=1)]
    distinct: dict[tuple[str, str, str], dict[str, Any]] = {}
    for own in prompts:
        distinct.setdefault((own["form"], own["wording"], own["prompt"]), own)
    if twice := len(prompts) - len(distinct):
        tell(f"{twice} of {len(prompts)} prompts of {path} stand there twice; each counts once")
    return prompts_table(list(distinct.values()))


def read_rows(path: Path) -> list[Row]:
    """All rows of a .txt, .jsonl, .csv or .parquet file.

    Raises:
        ConfigError: it is missing, unreadable, or a line of it is.
    """
    rows = []
    for number, row in enumerate(rows_of(path), start=1):
        if row is None:
            raise ConfigError(f"{path} is unreadable (row {number} is no JSON object in UTF-8).")
        rows.append(row)
    return rows


def _prompt(row: Row, number: int, path: Path) -> dict[str, Any]:
    place = f"Row {number} of the prompt file {path}"
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise ConfigError(f"{place} has no text in 'prompt'.")
    prompt = _text(prompt, "prompt", place) or ""
    given = dict(row)
    if all(name in row for name in _GENEVAL):
        record = {name: row[name] for name in sorted(row)}
        given = {"category": row["tag"], "intent": json.dumps(record, ensure_ascii=False)}
    given.setdefault("form", given.get("prompt_form"))
    texts = {name: _text(given.get(name), name, place) for name in _TEXTS}
    same = texts["id"] or texts["intent"] or prompt.strip()
    return {
        "form": texts["form"] or OWN,
        "wording": texts["wording"] or OWN,
        "intent_id": fingerprint(same),
        "prompt": prompt.strip(),
        "intent": texts["intent"],
        "category": texts["category"],
        "questions": _questions(given.get("questions"), place),
        "held_out": _yes_or_no(given.get("held_out"), place),
    }


def _text(value: object, name: str, place: str) -> str | None:
    if value is None or value == "":
        return None
    if name == "wording" and value == "all":
        raise ConfigError(f"{place} has the wording 'all', which stands for all of them.")
    if isinstance(value, str) or (name == "id" and isinstance(value, int)):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{place} has half a character (a surrogate) in {name!r}.") from None
        return str(value)
    raise ConfigError(f"{place} has a {name!r} that is no text.")


def _yes_or_no(value: object, place: str) -> bool:
    said = str(value or "").lower()
    if said not in ("", "true", "1", "false", "0", "0.0", "1.0"):
        raise ConfigError(f"{place} has 'held_out' = {value!r}, which is not true or false.")
    return said in ("true", "1", "1.0")


def _questions(value: object, place: str) -> list[str]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):  # refused below
            value = json.loads(value)
    if value is None or value == "":
        return []
    if isinstance(value, list) and all(isinstance(own, str) and own.strip() for own in value):
        return value
    raise ConfigError(f"{place} has 'questions' that are no list of texts.")
