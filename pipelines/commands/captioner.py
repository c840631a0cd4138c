"""`caplab captioner fit`: make a captioner from (image, caption) pairs."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.terminal.options import PLACE, settings_options
from pipelines.terminal.quiet import say, show
from recaption.fit.settings import FitSettings


@click.group("captioner")
def command() -> None:
    """Make captioners of your own."""


@command.command()
@click.argument("pairs", metavar="PAIRS", type=PLACE)
@click.option("--out", required=True, type=PLACE, help="Run directory to make or continue.")
@click.option("--dry-run", is_flag=True, help="Time a few steps, print sizes and time, store none.")
@settings_options(FitSettings)
def fit(pairs: Path, out: Path, dry_run: bool, settings: FitSettings) -> None:
    """Fit a captioner to (image, kind, caption) pairs, once for each kind.

    PAIRS is a dataset directory with captions, a folder with captions.jsonl or with texts beside
    its pictures (NAME.short.txt), or a JSONL or Parquet file with the columns image, kind and
    caption. The captioners are OUT/short and OUT/descriptive, folders that `caplab recaption
    --captioner` loads.

    \b
    Examples:
      caplab captioner fit pairs.jsonl --base Qwen/Qwen2.5-VL-3B-Instruct \\
          --out runs/captioner
      caplab captioner fit data/mine --selection good --kinds descriptive \\
          --base new --pretrain data/mine --checkpoints 0.05,0.15,0.4,1.0 \\
          --out runs/captioner
    """
    say(f"loading {settings.base}, pairs of {pairs}")
    if dry_run:
        from recaption.fit.rehearsal import rehearse

        show(rehearse(pairs, settings))
        return
    from recaption.fit.run import fit as run

    show(run(pairs, out, settings))
