"""`caplab import-captions`: texts in files; recaption.human.take_in has its function."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.terminal.options import dataset_argument, settings_options
from pipelines.terminal.quiet import say, show
from recaption.human.settings import ImportSettings


@click.command("import-captions")
@dataset_argument
@click.argument("texts", metavar="TEXTS")
@settings_options(ImportSettings)
@click.option("--dry-run", is_flag=True, help="Match and count, show three, store nothing.")
def command(directory: Path, texts: str, dry_run: bool, settings: ImportSettings) -> None:
    """Take in captions that people wrote, as kind `human`.

    TEXTS is a folder of NAME.txt files, or a list (JSONL, CSV, TSV, JSON, Parquet) with a column
    key, file_name or url and one of texts; local, or s3:// and the like. A text belongs to the
    picture of that key, else of that file name, else of that URL; what belongs to none is counted
    and listed with its reason. A rerun makes the captions again what the files say.

    \b
    Examples:
      caplab import-captions data/mine my_pictures/ --dry-run
      caplab import-captions data/mine captions.jsonl --name anna
      caplab recaption data/mine --captioner MODEL --only-missing
      caplab train data/mine --captions human=0.5,descriptive=0.5 --out runs/a
    """
    say(f"reading {texts}")
    from recaption.human.take_in import import_captions

    show(import_captions(directory, texts, settings, dry_run))
