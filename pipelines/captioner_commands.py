"""`caplab upsample`: a captioner used apart from any dataset."""

from __future__ import annotations

from pathlib import Path

import click

from curate.base.errors import ConfigError
from pipelines.options import resolve, settings_options
from recaption.upsample.settings import UpsampleSettings


@click.command()
@click.argument("source", metavar="PROMPTS", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Parquet file to make or continue.")
@click.option("--dry-run", type=int, metavar="N", help="Rewrite N prompts, print them, write none.")
@settings_options(UpsampleSettings)
def upsample(
    source: Path,
    out: Path | None,
    dry_run: int | None,
    config: Path | None,
    given: dict[str, object],
) -> None:
    """Rewrite short prompts as descriptive ones, for models trained on descriptive captions.

    PROMPTS is a .txt file with a prompt a line, or .jsonl or .parquet with a column of them. Each
    is rewritten into 15 to 80 words that keep its meaning; OUT has one row a prompt with the
    original, the rewrite or the reason why there is none, and where it came from. The same command
    continues after a kill, and asks only for what is new.

    \b
    Examples:
      caplab upsample prompts.txt --captioner http://localhost:8000/v1 --dry-run 10
      caplab upsample prompts.jsonl --captioner Qwen/Qwen2.5-VL-3B-Instruct --out upsampled.parquet
    """
    from recaption.upsample.run import dry_run as rehearse
    from recaption.upsample.run import upsample as run

    settings = resolve(UpsampleSettings, config, given)
    if dry_run is not None:
        if dry_run < 1:
            raise ConfigError("--dry-run needs a number of prompts of 1 or more.")
        click.echo(rehearse(source, settings, dry_run))
        return
    if out is None:
        raise ConfigError("Name the Parquet file to write with --out, or try with --dry-run N.")
    click.echo(run(source, out, settings).text())
