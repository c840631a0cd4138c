"""What a judge that reads scores a picture against: the intent where it is a text, else the prompt.

A prompt may be reworded or up-sampled; the picture is to show what was meant. Where the intent is a
record (a scene, a GenEval record, the key of a picture) and no text, only the prompt can be read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Against = Literal["intent", "prompt"]
READ_LIMIT = (
    "A picture is scored against the intent where that is a text; against the prompt where the "
    "intent is a record, such as a scene: then each form and wording is scored against itself."
)


def record(intent: str | None) -> dict[str, Any] | None:
    """The intent as a JSON object; None where it is a text or missing."""
    if intent is None or not intent.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(intent)
    except ValueError:
        return None  # a text that begins with a brace
    return found if isinstance(found, dict) else None


def texts_of(asked: pa.Table, against: Against = "intent") -> list[str]:
    """The text that each of N rows of PROMPTS is scored against."""
    prompts: list[str] = asked.column("prompt").to_pylist()
    if against == "prompt":
        return prompts
    return [
        intent if intent and record(intent) is None else prompt
        for prompt, intent in zip(prompts, asked.column("intent").to_pylist(), strict=True)
    ]
