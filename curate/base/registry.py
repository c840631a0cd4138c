"""Steps by name: built in, joined by an installed package's entry point, or `module:attribute`.

A package joins a registry in its pyproject.toml:

    [project.entry-points."caption_lab.gates"]
    no_watermark = "my_package.gates:no_watermark"
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TypeVar

from curate.base.errors import ConfigError
from curate.base.reasons import printable

Given = TypeVar("Given")
_LONGEST = 300  # characters of what a stranger's code says


def load(group: str, name: str, builtin: Mapping[str, str]) -> object:
    """What a name stands for; its module is imported only now.

    Args:
        group: what is looked for, in the plural ("gates"); entry points are of the group
            `caption_lab.<group>`.
        name: a built-in name, an entry point's, or `module:attribute`. A built-in name cannot be
            taken by an entry point.
        builtin: name to `module:attribute`.

    Raises:
        ConfigError: nobody has that name, or it cannot be imported.
    """
    if name in builtin:
        # A fault of our own module is a bug: no sentence hides it.
        module, _, attribute = builtin[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    target = _entry_points(group).get(name, name)
    module, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        names = ", ".join(known(group, builtin))
        raise ConfigError(
            f"There are no {group} named {name!r}; "
            f"{f'known are {names}, or' if names else 'give'} one of your own as module:attribute."
        )
    return _imported(target, f"{group}: {name!r}")


def known(group: str, builtin: Mapping[str, str]) -> list[str]:
    """The names that `load` knows: built-in ones first, in their order, then entry points."""
    return [*builtin, *sorted(_entry_points(group).keys() - builtin.keys())]


def _entry_points(group: str) -> dict[str, str]:
    """Name to `module:attribute` of what installed packages offer; imports none of them."""
    points = metadata.entry_points(group=f"caption_lab.{group}")
    return {point.name: point.value for point in points}


def _imported(target: str, what: str) -> object:
    module, _, attribute = target.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise ConfigError(
            f"{what} cannot be imported: {error}. Install its package, or name its folder in "
            f"PYTHONPATH."
        ) from error
    except AttributeError as error:
        raise ConfigError(f"{what} cannot be imported: {error}.") from error
    except Exception as error:  # a stranger's module may be no Python, or raise anything
        raise ConfigError(f"{what} cannot be imported: {type(error).__name__}: {error}.") from error
    return found


def tried(work: Callable[[], Given]) -> Given | Exception:
    """What a stranger's code gives, or what it raises, which may be anything."""
    try:
        return work()
    except SystemExit as error:  # would end the command, and perhaps as one that went well
        return RuntimeError(f"it asks to exit with {error.code!r}")
    except Exception as error:
        return error


def said(given: object) -> str:
    """An error or a wrong value in a few printable words."""
    words = f"{type(given).__name__}: {given}" if isinstance(given, Exception) else repr(given)
    return printable(words)[:_LONGEST]
