"""Command-line options generated from a settings class: one definition, three ways to set it.

Precedence: the class's default, then the YAML file given with --config, then the option.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from curate.errors import ConfigError
from curate.settings import S, Settings, load_settings

Command = Callable[..., Any]


def settings_options(
    cls: type[Settings], hidden: tuple[str, ...] = ()
) -> Callable[[Command], Command]:
    """Decorate a click command with one option a field of `cls`, and with --config.

    The command receives `config` (a path or None) and `given` (a dict with only the options that
    were given), both meant for `resolve`. Fields named in `hidden` are set by the command itself.
    """

    def decorate(command: Command) -> Command:
        def gather(**arguments: Any) -> Any:
            given = {
                name: arguments.pop(name)
                for name in cls.model_fields
                if name not in hidden and name in arguments
            }
            given = {name: value for name, value in given.items() if value is not None}
            return command(given=given, **arguments)

        gather.__doc__ = command.__doc__
        gather.__name__ = command.__name__
        gather.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        for name, info in reversed(cls.model_fields.items()):
            if name not in hidden:
                gather = _option(name, info)(gather)
        return click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="YAML file with any of the settings below; options override it.",
        )(gather)

    return decorate


def resolve(cls: type[S], config: Path | None, given: Mapping[str, Any], **fixed: Any) -> S:
    """The command's settings: YAML, then the options given, then what the command fixes."""
    return load_settings(
        cls, config, {**given, **{k: v for k, v in fixed.items() if v is not None}}
    )


def _option(name: str, info: FieldInfo) -> Callable[[Command], Command]:
    flag = "--" + name.replace("_", "-")
    base = _without_none(info.annotation)
    default = _default_text(info)
    help_text = (info.description or "").rstrip(".")
    if default:
        help_text += f"  [default: {default}]"
    if base is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    return click.option(flag, name, default=None, type=_parameter_type(base), help=help_text)


def _parameter_type(base: Any) -> click.ParamType:
    origin = get_origin(base)
    if origin is Literal:
        return click.Choice([str(choice) for choice in get_args(base)])
    if base is int:
        return click.INT
    if base is float:
        return click.FLOAT
    if origin in (dict, Mapping) or origin is typing.get_origin(Mapping[str, float]):
        return _Shares()
    if origin in (list, tuple, frozenset, set):
        return _CommaList()
    return _Text()


class _Text(click.ParamType):
    name = "text"


class _CommaList(click.ParamType):
    """`a,b,c` -> ["a", "b", "c"]."""

    name = "a,b,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(",") if part.strip()]


class _Shares(click.ParamType):
    """`descriptive=0.95,alt=0.05` -> {"descriptive": 0.95, "alt": 0.05}."""

    name = "name=value,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        return parse_shares(value)


def parse_shares(text: str) -> dict[str, float]:
    """Parse `name=number,...`.

    Raises:
        ConfigError: a part is not `name=number`.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            shares[name.strip()] = float(number)
        except ValueError as error:
            raise ConfigError(
                f"{part.strip()!r} is not of the form name=number, as in descriptive=0.95,alt=0.05."
            ) from error
    return shares


def _without_none(annotation: Any) -> Any:
    """X from `X | None`; the first type of any other union."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is typing.Annotated:
        return _without_none(get_args(annotation)[0])
    return annotation


def _default_text(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True)
    if value is None or value == "" or value == [] or value == {}:
        return ""
    if isinstance(value, dict):
        return ",".join(f"{key}={part}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(str(part) for part in value)
    return str(value)
