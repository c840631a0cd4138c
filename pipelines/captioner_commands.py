"""`caplab serve-captioner` and `caplab upsample`: a captioner used apart from any dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipelines.options import resolve, settings_options
from recaption.serve_settings import ServeSettings

Given = dict[str, Any]


@click.command("serve-captioner")
@click.argument("place", metavar="CAPTIONER")
@settings_options(ServeSettings, hidden=("captioner",))
def serve_captioner(place: str, config: Path | None, given: Given) -> None:
    """Serve a captioner over OpenAI's protocol, requests batched as they come.

    CAPTIONER is a folder, a hub id or, to put a queue and a key before it, a server's URL.

    \b
    Example:
      caplab serve-captioner models/my-captioner --port 8000
      caplab recaption data/mine --captioner http://127.0.0.1:8000/v1

    SIGTERM and Ctrl-C finish what was taken in. See docs/recaption.md.
    """
    from pipelines.serving import serve_captioner as run

    run(resolve(ServeSettings, config, {**given, "captioner": place}), _say)


def _say(words: str) -> None:
    click.echo(words)
