"""`caplab upsample`: short prompts made descriptive; recaption.upsample.run has its function."""

from __future__ import annotations

from pathlib import Path

import click

from curate.base.errors import ConfigError
from pipelines.terminal.options import PLACE, settings_options
from pipelines.terminal.quiet import say, show
from recaption.upsample.settings import UpsampleSettings


@click.command("upsample")
@click.argument("source", metavar="PROMPTS", type=PLACE)
@click.option("--out", type=PLACE, help="Parquet file to make or continue.")
@click.option("--dry-run", type=int, metavar="N", help="Rewrite N prompts, print them, stop.")
@settings_options(UpsampleSettings)
def command(
    source: Path, out: Path | None, dry_run: int | None, settings: UpsampleSettings
) -> None:
    """Rewrite short prompts as descriptive ones, for models trained on descriptive captions.

    PROMPTS is a .txt file with a prompt a line, or .jsonl, .csv or .parquet with a column of them.
    Each is rewritten into 15 to 80 words that keep its meaning; OUT has one row a prompt with the
    original, the rewrite or the reason why there is none, and where it came from. The same command
    continues after a kill, and asks only for what is new.

    \b
    Examples:
      caplab upsample prompts.txt --captioner http://localhost:8000/v1 \\
          --dry-run 10
      caplab upsample prompts.jsonl --captioner Qwen/Qwen2.5-VL-3B-Instruct \\
          --out upsampled.parquet
    """
    say(f"opening the captioner {settings.captioner}")
    from recaption.upsample import run

    if dry_run is not None:
        if dry_run < 1:
            raise ConfigError("--dry-run needs a number of prompts of 1 or more.")
        show(run.dry_run(source, settings, dry_run))
        return
    if out is None:
        raise ConfigError("Name the Parquet file to write with --out, or try with --dry-run N.")
    show(run.upsample(source, out, settings))
