"""`caplab duplicates`: find copies, in a dataset and against earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curate.base.telling.summaries import Summary
from curate.duplicates.settings import DuplicateSettings, ReferenceSettings
from pipelines.terminal.options import dataset_argument, settings_options
from pipelines.terminal.quiet import say, show

if TYPE_CHECKING:
    from curate.duplicates.references import ReferenceSummary


@click.command("duplicates")
@dataset_argument
@click.option(
    "--against",
    multiple=True,
    metavar="DATASET",
    help="Search against an earlier dataset too: its pictures make the column `known`; repeatable.",
)
@settings_options(DuplicateSettings)
def command(directory: Path, against: tuple[str, ...], settings: DuplicateSettings) -> None:
    """Find duplicates: exact, near and embedding, and SemDeDup's rule where it is asked for.

    `caplab curate` runs this stage too; here it runs alone, with other settings or against other
    datasets. What was compared before is not compared again.

    \b
    Examples:
      caplab duplicates data/mine --quality "aesthetic,width * height"
      caplab duplicates data/mine --semdedup-epsilon 0.03
      caplab duplicates data/new --against data/old
      caplab select data/new --name fresh --where "not known"
    """
    say(f"comparing the pictures of {directory}")
    show(duplicates(directory, settings, against))


@dataclass(frozen=True)
class DuplicateSummary(Summary):
    """What was found.

    Attributes:
        counts: those of `find_duplicates`.
        known: of each earlier dataset.
    """

    counts: Mapping[str, int]
    known: tuple[ReferenceSummary, ...] = ()

    def text(self) -> str:
        """What the command prints."""
        from curate.duplicates.search import describe

        return "\n".join([describe(self.counts), *(one.text() for one in self.known)])


def duplicates(
    directory: Path | str, settings: DuplicateSettings, against: Sequence[Path | str] = ()
) -> DuplicateSummary:
    """Find copies and write their tables.

    Args:
        against: earlier datasets whose pictures make the column `known`.

    Raises:
        ConfigError: a setting is wrong, or `memory_limit` too little.
        DatasetError: no dataset there, or one with lost tables.
    """
    from curate.duplicates.references import find_references
    from curate.duplicates.search import find_duplicates
    from curate.store.dataset import Dataset
    from curate.store.holes import DUPLICATE_TABLES, refuse_holes
    from curate.store.lock import writing

    dataset = Dataset.open(directory)
    places = [Dataset.open(place) for place in against]
    refuse_holes(dataset, but=DUPLICATE_TABLES)
    with writing(dataset.directory, "duplicates"):
        counts = find_duplicates(dataset, settings)
    rule = ReferenceSettings(**settings.resolved())
    known = (find_references(dataset, place.directory, rule, "known") for place in places)
    return DuplicateSummary(counts, tuple(known))
