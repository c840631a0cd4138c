"""Names of the gates, for settings: they are read before anything heavy is imported."""

from __future__ import annotations

DEFAULT_REJECTS = (
    "empty",
    "refusal",
    "reasoning",
    "options",
    "prompt_leak",
    "garbled",
    "loop",
    "url_or_markup",
    "language",
    "truncated",
    "too_short",
)
"""Those that reject a caption unless the settings say otherwise."""

NEAR_DUPLICATE = "near_duplicate"
GATE_NAMES = (*DEFAULT_REJECTS, "below_alt_text", "banned_opening", "alt_copy", NEAR_DUPLICATE)
"""All of `recaption.gates.gates.GATES`, in their order."""
