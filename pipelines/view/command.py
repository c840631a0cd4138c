"""`caplab view`: look at a dataset, a training run or a study in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.terminal.options import PLACE, settings_options
from pipelines.terminal.quiet import say
from pipelines.view.settings import ViewSettings


@click.command("view")
@click.argument("directory", metavar="DIR", type=PLACE)
@settings_options(ViewSettings)
def command(directory: Path, settings: ViewSettings) -> None:
    """Look at a dataset, a training run or a study in the browser.

    Serves a page on this machine alone, until Ctrl-C. What the page keeps (thumbnails, a copy of
    the tables for speed) lies in DIR/view and may be deleted.

    \b
    Examples:
      caplab view data/mine --open
      caplab view runs/captions --port 0
    """
    view(directory, settings)


def view(directory: Path | str, settings: ViewSettings | None = None) -> None:
    """Serve the page of a directory until Ctrl-C or a signal, and return.

    Raises:
        ConfigError: the port is taken, or the host is one that others reach.
        DatasetError: the directory is no dataset, run or study.
    """
    from pipelines.view.opened import find
    from pipelines.view.serve import serve

    settings = settings or ViewSettings()
    opened = find(directory)
    opened.by = settings.by
    if opened.cache != opened.directory / "view":
        say(f"{opened.directory} cannot be written; thumbnails go to {opened.cache}")

    def ready(address: str) -> None:
        click.echo(f"{opened.directory.name}: {address}  (Ctrl-C ends it)")
        if settings.allow_remote:
            say("other machines can read and change it: there is no password")
        if settings.open:
            import webbrowser

            webbrowser.open(address)

    serve(opened, settings, ready)
