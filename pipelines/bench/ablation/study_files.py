"""Where the studies' files lie, and what they ask."""

from __future__ import annotations

from pathlib import Path

STUDIES = Path(__file__).parent / "studies"
NAMES = ("main", "blend", "dose", "format", "captioners", "filters")
"""In the order in which they run: the answer first."""


def study_file(name: str) -> Path:
    """The file of a study, such as main."""
    return STUDIES / f"{name}.yaml"


def question(name: str) -> str:
    """What a study asks: the comment that its file begins with."""
    lines = study_file(name).read_text(encoding="utf-8").splitlines()
    first = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.removeprefix("#").strip() for line in lines[:first])
