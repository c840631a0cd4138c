"""SQL's quoting, for names that come from files."""

from __future__ import annotations


def identifier(name: str) -> str:
    """A column's name, quoted."""
    return '"' + name.replace('"', '""') + '"'
