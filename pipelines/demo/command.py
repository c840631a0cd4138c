"""`caplab demo`: pipelines.demo.demo is its function."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.demo.settings import DemoSettings
from pipelines.terminal.options import PLACE, settings_options
from pipelines.terminal.quiet import say, show


@click.command("demo")
@click.option("--out", default=Path("runs/demo"), type=PLACE, show_default=True)
@settings_options(DemoSettings)
def command(out: Path, settings: DemoSettings) -> None:
    """Walk the whole road offline on the synthetic world, in under ten minutes on two cores."""
    say(f"walking the road in {out}")
    from pipelines.demo.demo import demo

    show(demo(out, settings))
