"""Command-line options generated from a settings class: one definition, three ways to set it.

Precedence: the class's default, then the YAML file given with --config, then the option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import yaml
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from curate.base.settings import (
    EACH,
    NONE,
    Settings,
    comma_list,
    load_settings,
    may_be_none,
    named_values,
    without_none,
)

Command = Callable[..., Any]

PLACE = click.Path(path_type=Path)
dataset_argument = click.argument("directory", metavar="DIR", type=PLACE)
"""`DIR`, the dataset's directory, as `directory: Path`."""


def settings_options(
    cls: type[Settings],
    instead: Mapping[str, Callable[[Command], Command]] | None = None,
    hidden: Sequence[str] = (),
    as_given: bool = False,
) -> Callable[[Command], Command]:
    """Decorate a click command with one option a field of `cls`, and with --config.

    The command receives `settings`, an instance of `cls`.

    Args:
        instead: field -> the option or argument that sets it in place of the generated one.
        hidden: fields that the command line does not set.
        as_given: the command receives, in place of `settings`, `config` (a path or None) and
            `given` (only what was given), for settings of which more has to be known.
    """

    def decorate(command: Command) -> Command:
        def gather(config: Path | None, **arguments: Any) -> Any:
            context = click.get_current_context()
            given = {}
            for name, info in cls.model_fields.items():
                if name in arguments:
                    value = arguments.pop(name)
                    if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                        given[name] = None if _is_none(value, info) else value
            if as_given:
                return command(config=config, given=given, **arguments)
            return command(settings=load_settings(cls, config, given), **arguments)

        gather.settings_class = cls  # type: ignore[attr-defined]  # for help in groups
        gather.__doc__ = command.__doc__
        gather.__name__ = command.__name__
        gather.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        for name, info in reversed(cls.model_fields.items()):
            if name not in hidden and name not in cls.RENAMED:  # what it joins says it otherwise
                gather = (instead or {}).get(name, _option(name, info))(gather)
        return click.option(
            "--config",
            type=PLACE,
            metavar="FILE",
            help="YAML file with any of the settings below; options override it.",
        )(gather)

    return decorate


def _option(name: str, info: FieldInfo) -> Callable[[Command], Command]:
    flag = "--" + name.replace("_", "-")
    base = without_none(info.annotation)
    default = _default_text(info)
    help_text = (info.description or "").rstrip(".")
    if default:
        help_text += f"  [default: {default}]"
    if base is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    if isinstance(info.json_schema_extra, dict) and EACH.items() <= info.json_schema_extra.items():
        return click.option(
            flag, name, multiple=True, type=_Named(), callback=_joined, help=help_text
        )
    kind = _parameter_type(base)
    several = isinstance(kind, _CommaList | _NamedValues)
    if may_be_none(info.annotation):
        kind = _OrNone(kind)
    if several:
        return click.option(
            flag, name, multiple=True, type=kind, callback=_together, help=help_text
        )
    return click.option(flag, name, default=None, type=kind, help=help_text)


def _is_none(value: Any, info: FieldInfo) -> bool:
    """`--option none` clears a setting that may be empty."""
    return value == NONE and may_be_none(info.annotation)


def _parameter_type(base: Any) -> click.ParamType:
    origin, parts = get_origin(base), get_args(base)
    if origin is Literal:
        return click.Choice([str(choice) for choice in parts])
    if base in (int, float):
        return click.INT if base is int else click.FLOAT
    nested = any(get_origin(part) is not None for part in parts)
    if origin is not None and nested:
        return _Yaml()
    if origin is dict:
        return _NamedValues()
    if origin in (list, tuple, frozenset, set):
        return _CommaList()
    return _Text()


class _Text(click.ParamType):
    name = "text"


class _OrNone(click.ParamType):
    """Of a setting that may be empty: its own type, or `none`."""

    def __init__(self, kind: click.ParamType) -> None:
        self._kind = kind
        self.name = kind.name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self._kind.get_metavar(param, ctx)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return value if value == NONE else self._kind.convert(value, param, ctx)


class _CommaList(click.ParamType):
    """`a,b,c` -> ["a", "b", "c"]."""

    name = "a,b,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return comma_list(value) if isinstance(value, str) else value


class _NamedValues(click.ParamType):
    """`descriptive=0.95,alt=0.05` -> {"descriptive": 0.95, "alt": 0.05}.

    Values with commas are written as in YAML: `{tags: "coalesce(a, b)"}`.
    """

    name = "name=value,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and value.lstrip().startswith("{"):
            return _Yaml().convert(value, param, ctx)
        return named_values(value) if isinstance(value, str) else value


class _Named(click.ParamType):
    """`logo=Is there a logo, or a mark?` -> ("logo", "Is there a logo, or a mark?")."""

    name = "name=text"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, _, text = (part.strip() for part in value.partition("="))
        if not (name and text):
            self.fail(f"{value!r} is not of the form NAME=TEXT", param, ctx)
        return name, text


def _joined(ctx: click.Context, param: click.Parameter, pairs: Any) -> dict[str, Any]:
    """The values of an option that was given several times, by name."""
    joined = dict(pairs)
    if len(joined) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise click.BadParameter(f"{twice!r} is given twice", ctx, param)
    return joined


def _together(ctx: click.Context, param: click.Parameter, parts: Any) -> Any:
    """A list or mapping that was given in several parts; the last must not win silently."""
    if NONE in parts:
        if len(parts) > 1:
            raise click.BadParameter(f"{NONE!r} stands alone", ctx, param)
        return NONE
    if parts and isinstance(parts[0], dict):
        return _joined(ctx, param, [pair for part in parts for pair in part.items()])
    return [value for part in parts for value in part]


class _Yaml(click.ParamType):
    """A nested value, in YAML's one-line form: `{alt: {alt: 1.0}}`."""

    name = "YAML"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return yaml.safe_load(value)
        except yaml.YAMLError:
            self.fail(f"{value!r} is not YAML", param, ctx)


def _default_text(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True)
    if value is None or value is False or value in ("", [], {}):  # a flag that is not given
        return ""
    if any(isinstance(part, (dict, tuple)) for part in _parts(value)):
        return yaml.safe_dump(_plain(value), default_flow_style=True, width=1000).strip()
    if isinstance(value, dict):
        return ",".join(f"{key}={part}" for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(str(part) for part in value)
    return str(value)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML knows."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
