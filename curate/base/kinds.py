"""Kinds of captions: their names, and those that no model and no rule writes."""

from __future__ import annotations

import re

from curate.base.errors import ConfigError

ALT = "alt"
"""The texts that came with the pictures."""
HUMAN = "human"
"""What people wrote, corrected or judged, see `recaption.human`."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def check_kind(name: str) -> None:
    """Raise ConfigError unless captions of this kind may be written by a captioner or a rule."""
    if not _NAME.fullmatch(name) or name in (ALT, HUMAN):
        raise ConfigError(
            f"{name!r} cannot be a caption kind; use lower-case letters, digits, _ and -, begin "
            f"with a letter, and take another name than {ALT!r} and {HUMAN!r}."
        )
