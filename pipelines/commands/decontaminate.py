"""`caplab decontaminate`: which samples show a picture of an evaluation set."""

from __future__ import annotations

from pathlib import Path

import click

from curate.duplicates.settings import UNUSED, ReferenceSettings
from pipelines.terminal.options import dataset_argument, settings_options
from pipelines.terminal.quiet import say, show


@click.command("decontaminate")
@dataset_argument
@click.option(
    "--references",
    required=True,
    metavar="PLACE",
    help="Evaluation pictures: a folder or glob, local or remote, or a dataset directory.",
)
@settings_options(ReferenceSettings, hidden=UNUSED)
def command(directory: Path, references: str, settings: ReferenceSettings) -> None:
    """Find the samples that show a picture of an evaluation set.

    They are reported apart from the duplicates, in the table reference_matches, and are the column
    `contaminated` of a selection. Fingerprints of a folder are computed once.

    \b
    Example:
      caplab decontaminate data/mine --references data/coco/val2017
      caplab select data/mine --name clean --where "not contaminated"
    """
    say(f"comparing {directory} with {references}")
    from curate.duplicates.references import find_references
    from curate.store.dataset import Dataset
    from curate.store.holes import refuse_holes

    dataset = Dataset.open(directory)
    refuse_holes(dataset, but=("reference_matches", "duplicates"))
    show(find_references(dataset, references, settings))
