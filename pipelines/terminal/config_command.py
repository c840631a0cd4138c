"""`caplab config`: all settings of a command as YAML, each with what it is, for --config."""

from __future__ import annotations

import textwrap
from typing import Any, Literal, get_args, get_origin

import click
import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from curate.base.settings import NONE, Settings, may_be_none, without_none
from pipelines.terminal.groups import experts_of, groups_of

_WIDTH = 96


def _names(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """For a Tab: the commands, whose modules it must not import."""
    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    return [name for name in root.list_commands(ctx) if name.startswith(begun)]


@click.command("config")
@click.argument("names", metavar="COMMAND", nargs=-1, required=True, shell_complete=_names)
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Print all settings of a command as commented YAML, with their defaults.

    --config takes the file as it stands. Every setting is behind a #, so that what you do not set
    follows its default, the preset that you name or the dataset's own settings; take the # away to
    set one. Options on the command line come over the file.

    \b
    Examples:
      caplab config curate > curate.yaml
      caplab curate urls.parquet --out data/mine --config curate.yaml
      caplab config captioner fit
    """
    click.echo(config_yaml(settings_of(ctx.find_root(), names), " ".join(names)), nl=False)


def settings_of(root: click.Context, names: tuple[str, ...]) -> type[Settings]:
    """The settings class of a command that is named as on the command line.

    Raises:
        click.UsageError: there is no such command, or it has no settings.
    """
    found: click.Command | None = root.command
    for name in names:
        if isinstance(found, click.Group):
            _, found, _ = found.resolve_command(root, [name])
        else:
            found = None
    settings: type[Settings] | None = getattr(
        getattr(found, "callback", None), "settings_class", None
    )
    if settings is None:
        having = ", ".join(configurable(root, root.command))
        raise click.UsageError(
            f"{' '.join(names)} takes no --config; these do: {having}.", click.get_current_context()
        )
    return settings


def configurable(root: click.Context, command: click.Command | None, before: str = "") -> list[str]:
    """The names of all commands that take --config."""
    if isinstance(command, click.Group):
        inner = [(name, command.get_command(root, name)) for name in command.list_commands(root)]
        return [found for n, one in inner for found in configurable(root, one, f"{before} {n}")]
    has = getattr(getattr(command, "callback", None), "settings_class", None) is not None
    return [before.strip()] if has else []


def config_yaml(cls: type[Settings], name: str) -> str:
    """The settings of a class in their groups: `# words` and `#name: default`."""
    lines = [
        f"# Settings of `caplab {name}` with their defaults, for --config. Take the # before one",
        "# away to set it.",
    ]
    experts, fields_of = experts_of(cls), cls.model_fields
    try:  # once, since a default may come from a preset
        made = dict(cls())
    except ValidationError:  # something must be given
        made = {}
    for heading, fields in groups_of(cls).items():
        lines += ["", f"# ---- {heading} ".ljust(_WIDTH, "-")]
        for field in fields:
            info = fields_of[field]
            default = made.get(field, info.get_default(call_default_factory=True))
            lines += ["", *_setting(field, info, default, field in experts)]
    return "\n".join(lines) + "\n"


def _setting(name: str, info: FieldInfo, default: Any, expert: bool) -> list[str]:
    text = (info.description or "").rstrip(".")
    told = [f"{text}." if text else ""]
    choices = _choices(info)
    if choices and not all(choice in text for choice in choices):
        told.append(f"One of {', '.join(choices)}.")
    if may_be_none(info.annotation) and f"{NONE} =" not in text:
        told.append(f"May be {NONE}.")
    if info.is_required():
        told.append("Must be given.")
    if expert:
        told.append("[expert]")
    comment = textwrap.wrap(
        " ".join(part for part in told if part),
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    shown = "" if info.is_required() else _flow(default)
    return [*comment, f"#{name}: {shown}".rstrip()]


def _choices(info: FieldInfo) -> list[str]:
    base = without_none(info.annotation)
    return [str(part) for part in get_args(base)] if get_origin(base) is Literal else []


def _flow(value: Any) -> str:
    """A default as YAML on one line."""
    if value is None:
        return NONE
    text: str = yaml.safe_dump(_plain(value), default_flow_style=True, width=10**6, sort_keys=False)
    return text.strip().removesuffix("...").strip()


def _plain(value: Any) -> Any:
    """What YAML knows: settings as mappings, tuples as lists."""
    if isinstance(value, Settings):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
