"""What every command has beside its own: help in groups, -v, -q and --log-file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from curate.base.telling.events import Level, be_quiet, emit, is_quiet, listen
from curate.base.telling.words import amount, in_a_line

_OWN, _EVERYWHERE = "Options", "Every command"
_ALL = "caplab.help_all"


class WholeCommand(click.Command):
    """A command whose help is in groups, and that tells what it does as it is asked to."""

    @classmethod
    def of(cls, command: click.Command) -> click.Command:
        """The same command; of a group, the same group of such commands."""
        if isinstance(command, click.Group):
            command.commands = {name: cls.of(one) for name, one in command.commands.items()}
            return command
        if isinstance(command, cls):
            return command
        names = ("name", "context_settings", "callback", "help", "epilog", "short_help", "hidden")
        whole = cls(**{name: getattr(command, name) for name in names})
        whole.params = [*command.params, _VERBOSE, _QUIET, _LOG_FILE, _HELP_ALL]
        return whole

    def invoke(self, ctx: click.Context) -> Any:
        begun = time.monotonic()
        emit("began", command=ctx.command_path)
        try:
            result = super().invoke(ctx)
        except SystemExit as end:  # `check` of a dataset that has faults; errors are told elsewhere
            _ended(ctx, begun, end.code)
            raise
        _ended(ctx, begun, 0)
        return result

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = {name: heading for heading, names in self.groups().items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {_OWN: []}
        sections |= {heading: [] for heading in self.groups()} | {_EVERYWHERE: []}
        common = (_VERBOSE, _QUIET, _LOG_FILE, _HELP_ALL, self.get_help_option(ctx))
        left_out = 0
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None or isinstance(param, click.Argument):  # the text above tells of it
                continue
            if param.name in self.experts() and not ctx.meta.get(_ALL):
                left_out += 1
                continue
            heading = _EVERYWHERE if param in common else headings.get(str(param.name), _OWN)
            sections[heading].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        if left_out:
            formatter.write_paragraph()
            more = amount(left_out, "more option")
            formatter.write_text(f"--help-all shows {more}, which few need.")

    def groups(self) -> Mapping[str, list[str]]:
        """Heading -> options, of those that a settings class makes."""
        from pipelines.terminal.groups import groups_of

        settings = getattr(self.callback, "settings_class", None)
        return groups_of(settings) if settings else {}

    def experts(self) -> frozenset[str]:
        """Options that only --help-all shows."""
        from pipelines.terminal.groups import experts_of

        settings = getattr(self.callback, "settings_class", None)
        return experts_of(settings) if settings else frozenset()


def _ended(ctx: click.Context, begun: float, status: object) -> None:
    seconds = round(time.monotonic() - begun, 3)
    emit("ended", command=ctx.command_path, status=status, seconds=seconds)


def _say_event(event: str, level: Level, values: dict[str, Any]) -> None:
    """What -v shows: what a run prints without it is not said twice, and -q is the stronger."""
    from tqdm import tqdm

    if event not in ("told", "failed") and not is_quiet():
        words = [f"{name}={value}" for name, value in values.items()]
        tqdm.write(in_a_line(" ".join([event, *words])), file=sys.stderr)


def _speak(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        listen(_say_event)


def _hush(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        be_quiet(True)


def _log(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None and not ctx.resilient_parsing:
        from pipelines.terminal.log_file import LogFile

        listen(LogFile(path))


def _show_all(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


_VERBOSE = click.Option(
    ["-v", "--verbose"],
    is_flag=True,
    expose_value=False,
    callback=_speak,
    help="Also say each shard, with its rows and counts, on stderr.",
)
_QUIET = click.Option(
    ["-q", "--quiet"],
    is_flag=True,
    expose_value=False,
    callback=_hush,
    help="No bars and no remarks: the result and errors alone.",
)
_LOG_FILE = click.Option(
    ["--log-file"],
    type=click.Path(path_type=Path, dir_okay=False),
    expose_value=False,
    callback=_log,
    help="Append what happens as JSON lines: time, level, event, stage, shard, rows, ...",
)
_HELP_ALL = click.Option(
    ["--help-all"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_all,
    help="Show all options, also those that few need.",
)
