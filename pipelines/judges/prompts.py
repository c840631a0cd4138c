"""What every arm is asked to draw."""

from __future__ import annotations

import pyarrow as pa

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
