"""Rows of PROMPTS, and small pictures, for the tests of the judges."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.judges.prompts import PROMPTS
from pipelines.judges.protocol import Pictures
from tests.curate.tiny import drawn


def asked(
    prompts: Sequence[str],
    intents: Sequence[str | dict[str, Any] | None] | None = None,
    questions: Sequence[list[str]] | None = None,
) -> pa.Table:
    """One row a prompt, of one form; an intent that is a record becomes JSON."""
    intents = intents or list(prompts)
    rows = [
        {
            "prompt_id": f"p{number}",
            "form": "own",
            "wording": "own",
            "intent_id": f"i{number}",
            "prompt": prompt,
            "intent": json.dumps(intent) if isinstance(intent, dict) else intent,
            "category": "",
            "questions": questions[number] if questions else [],
            "held_out": False,
        }
        for number, (prompt, intent) in enumerate(zip(prompts, intents, strict=True))
    ]
    return pa.Table.from_pylist(rows, PROMPTS)


def pictures(count: int, side: int = 32) -> Pictures:
    """(count, side, side, 3) uint8, each different."""
    return np.stack([drawn(seed, side, side) for seed in range(count)])
