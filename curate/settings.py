"""Typed settings: one class a command, from YAML and overrides, with unknown keys refused."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from curate.errors import ConfigError

S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Base of every command's settings: frozen, no unknown keys, every default documented.

    A field whose `json_schema_extra` holds `{"identity": False}` (such as a worker count) says
    how a command works and not what it makes; it may change between two runs on one directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def resolved(self) -> dict[str, Any]:
        """Every setting with its final value, ready for JSON."""
        return self.model_dump(mode="json")

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is made; two runs may share a directory iff these agree."""
        return {
            name: value
            for name, value in self.resolved().items()
            if not is_operational(type(self), name)
        }

    def part(self, cls: type[S]) -> S:
        """The settings of one component, out of a command's settings that contain its fields."""
        return cls(**{name: getattr(self, name) for name in cls.model_fields})


def is_operational(cls: type[BaseModel], name: str) -> bool:
    """Whether field `name` says only how to work (workers, threads), not what to make."""
    extra = cls.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and extra.get("identity") is False


def load_settings(
    cls: type[S], yaml_path: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> S:
    """Build settings from a YAML file (optional) with `overrides` on top.

    Raises:
        ConfigError: unreadable YAML, an unknown key (the nearest valid name is named) or a value
            out of its range; one sentence, for the first problem found.
    """
    values: dict[str, Any] = {}
    if yaml_path is not None:
        values.update(_read_yaml(Path(yaml_path)))
    values.update(overrides or {})
    refuse_unknown(values, list(cls.model_fields), f"{cls.__name__}")
    try:
        return cls(**values)
    except ValidationError as error:
        raise ConfigError(_first_problem(cls, error)) from error


def refuse_unknown(given: Mapping[str, Any], valid: list[str], where: str) -> None:
    """Raise ConfigError for the first key of `given` that is not in `valid`."""
    for key in given:
        if key not in valid:
            raise ConfigError(f"{where} has no setting {key!r}; {nearest(str(key), valid)}")


def nearest(name: str, valid: list[str]) -> str:
    """The hint at the end of an unknown-name message."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid names are {', '.join(sorted(valid))}."


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"The settings file {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The settings file {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The settings file {path} is not valid YAML ({error}).") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"The settings file {path} must hold `name: value` lines.")
    return loaded


def _first_problem(cls: type[BaseModel], error: ValidationError) -> str:
    problem = error.errors()[0]
    location = problem["loc"]
    name = ".".join(str(part) for part in location) or cls.__name__
    if problem["type"] == "extra_forbidden":
        return f"{cls.__name__} has no setting {name!r}."
    if problem["type"] == "missing":
        return f"{cls.__name__} needs a value for {name!r}."
    message = problem["msg"].removeprefix("Value error, ")
    return f"{cls.__name__}: {name} = {problem['input']!r} is not allowed: {message}."
