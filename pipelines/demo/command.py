"""`caplab demo`: pipelines.demo.demo is its function."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.demo.settings import DemoSettings
from pipelines.terminal.options import PLACE, settings_options


@click.command("demo")
@click.option("--out", default=Path("runs/demo"), type=PLACE, show_default=True)
@settings_options(DemoSettings)
def command(out: Path, settings: DemoSettings) -> None:
    """Walk the whole road offline on the synthetic world, some twenty minutes on two cores."""
    from pipelines.demo.demo import demo

    click.echo(demo(out, settings).text())
