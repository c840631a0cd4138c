"""`caplab derive`: a caption set made by rule; recaption.transforms.derive has its function."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.terminal.options import dataset_argument, settings_options
from pipelines.terminal.quiet import show
from recaption.transforms.derivation import Derivation


@click.command("derive")
@dataset_argument
@click.argument("name")
@settings_options(Derivation)
@click.option(
    "--dry-run", is_flag=True, help="Print five examples before and after, store nothing."
)
def command(directory: Path, name: str, dry_run: bool, settings: Derivation) -> None:
    """Make a caption set from stored captions by rule, with no model.

    NAME becomes a caption kind like any other: train on it, export it, judge it. Doses nest: what
    --dose 0.05 changes, 0.1 changes too. A rerun does only what is missing, or what is out of date
    because the captions it was made from have changed. What cannot be derived is stored as failed
    with its reason. docs/derived-captions.md shows every rule.

    \b
    Examples:
      caplab derive data/mine wrong20 --of descriptive --rule wrong_attributes \\
          --dose 0.2 --dry-run
      caplab derive data/mine shuffled --of descriptive --rule shuffle
      caplab derive data/mine padded --of alt --rule pad --like descriptive
      caplab train data/mine --captions wrong20=0.95,alt=0.05 --out runs/wrong20
    """
    from curate.store.dataset import Dataset
    from recaption.transforms.derive import derive, examples

    dataset = Dataset.open(directory)
    if not dry_run:
        show(derive(dataset, name, settings))
        return
    for before, after in examples(dataset, name, settings):
        show(f"- {before}\n+ {after}\n")
