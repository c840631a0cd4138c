"""Files of an input that become no row: counted by why, and named.

The names of all of them stand in `input/left_out.jsonl` of the dataset, a few in what a run prints.
"""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from typing import IO

from curate.base.reasons import printable

_SHOWN = 5  # names of each kind


class Why(StrEnum):
    """Why a file is no row; the value stands in left_out.jsonl."""

    plural: str

    def __new__(cls, value: str, plural: str) -> Why:
        """Make a member: its name in the file, and what several such files are called."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.plural = plural
        return member

    HIDDEN = "hidden", "hidden by their names"
    FURTHER = "further_picture", "further pictures of a sample that has one"
    LINK = "link", "links inside a tar"
    OTHER_FILE = "other_file", "neither pictures nor texts by their names"
    BESIDE = "beside", "beside the files that are read"


class LeftOut:
    """Collects them while an input is read; a name may be left out once a reading."""

    def __init__(self, file: IO[str] | None = None) -> None:
        """`file` takes a JSON line a name; None keeps only counts and the first names."""
        self._file = file
        self.counts: Counter[str] = Counter()
        self._names: dict[Why, list[str]] = {}

    def note(self, why: Why, name: str) -> None:
        """Count one file; of a tar's member the name is TAR#MEMBER."""
        self.counts[why.value] += 1
        shown = self._names.setdefault(why, [])
        if len(shown) < _SHOWN:
            shown.append(printable(name))
        if self._file is not None:
            # ASCII: names that are no UTF-8 hold lone surrogates.
            self._file.write(json.dumps({"why": why.value, "name": name}) + "\n")

    def names(self) -> dict[str, list[str]]:
        """Why -> the first names."""
        return {why.value: names for why, names in self._names.items()}


def left_out_line(counts: dict[str, int], names: dict[str, list[str]]) -> str:
    """One line: "left out: 2 hidden by their names (.DS_Store, ._a.jpg); ..."; "" for none."""
    parts = []
    for why in Why:
        count = counts.get(why.value, 0)
        if count:
            shown = ", ".join(names[why.value]) + (", ..." if count > len(names[why.value]) else "")
            parts.append(f"{count:,} {why.plural} ({shown})")
    return f"files that are no rows: {'; '.join(parts)}" if parts else ""
