"""A click group whose commands are imported when they are asked for, and listed without that."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import click
from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """The command `serve-captioner` is what `command` is in the module `serve_captioner`.

    Args:
        folder: the package of those modules.
        helps: name -> one line of help, in the order in which `--help` lists them.
        elsewhere: name -> module, of those that lie in another package.
    """

    def __init__(
        self,
        *arguments: Any,
        folder: str,
        helps: Mapping[str, str],
        elsewhere: Mapping[str, str],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._folder, self._helps, self._elsewhere = folder, helps, elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._helps)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._helps:
            return None
        own = f"{self._folder}.{cmd_name.replace('-', '_')}"
        module = importlib.import_module(self._elsewhere.get(cmd_name, own))
        from pipelines.terminal.whole_command import WholeCommand

        return WholeCommand.of(module.command)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands out of the list, since a Tab must not import all of them."""
        names = [
            CompletionItem(name, help=told)
            for name, told in self._helps.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:  # click looks among commands already imported
            if near := get_close_matches(args[0], self._helps):
                words = f"{error.message} Did you mean {near[0]!r}?"
                raise click.UsageError(words, ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._helps.items()))
