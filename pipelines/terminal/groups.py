"""What settings are for: the groups in which --help and `caplab config` show them."""

from __future__ import annotations

from curate.base.settings import Settings

RUNNING = "Running"
"""The group of how a command works; it stands last, whichever classes have a part in it."""


def groups_of(cls: type[Settings]) -> dict[str, list[str]]:
    """Heading -> its settings, of a command's settings class.

    The classes that it joins come in the order in which it names them, its own settings behind
    theirs.
    """
    starts: dict[str, str] = {}
    for base in reversed(_settings_classes(cls)):
        starts |= {first: heading for heading, first in base.GROUPS.items()}
    found: dict[str, list[str]] = {}
    own, *joined = _settings_classes(cls)
    for base in (*joined, own):
        heading = RUNNING
        for name in _own_fields(base):
            heading = starts.get(name, heading)
            if name not in cls.RENAMED:
                found.setdefault(heading, []).append(name)
    if RUNNING in found:
        found[RUNNING] = found.pop(RUNNING)
    return found


def experts_of(cls: type[Settings]) -> frozenset[str]:
    """The settings that few need."""
    return frozenset(name for base in _settings_classes(cls) for name in base.EXPERT.split())


def _settings_classes(cls: type[Settings]) -> list[type[Settings]]:
    return [base for base in cls.__mro__ if issubclass(base, Settings) and base is not Settings]


def _own_fields(cls: type[Settings]) -> list[str]:
    """The fields that a class adds to those of the classes that it joins."""
    joined = {name for base in _settings_classes(cls)[1:] for name in base.model_fields}
    return [name for name in cls.model_fields if name not in joined]
