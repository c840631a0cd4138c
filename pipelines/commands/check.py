"""`caplab check`: say whether a dataset is whole, and with --repair make it so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.terminal.options import dataset_argument
from pipelines.terminal.quiet import say, show

if TYPE_CHECKING:
    from curate.store.check import Check
    from pipelines.runners.protocol import Runner


@click.command("check")
@dataset_argument
@click.option("--repair", is_flag=True, help="Fetch and compute again what is gone.")
@click.option("--sha256", is_flag=True, help="Also read every byte of tars and tables.")
@click.option("--input", "source", metavar="INPUT", help="The list, if it lies elsewhere now.")
def command(directory: Path, repair: bool, sha256: bool, source: str | None) -> None:
    """Say whether a dataset is whole, and name what is not with the command that repairs it.

    Looks at contract, schemas and counts, at every key, and at each tar beside its table;
    docs/check.md lists it all. Exit status: 0 whole, 1 has faults, 2 no dataset, a wrong option.

    \b
    Examples:
      caplab check data/mine
      caplab check data/mine --sha256
      caplab check data/mine --repair
    """
    say(f"looking at every table and tar of {directory}")
    found = check_dataset(directory, sha256, repair, source)
    show(found)
    if not found.whole:
        sys.exit(1)


def check_dataset(
    directory: Path | str,
    read_all: bool = False,
    repair: bool = False,
    source: str | None = None,
    runner: Runner | None = None,
) -> Check:
    """Look at a dataset, and mend what can be mended from here.

    Args:
        read_all: read every byte; see `curate.store.check.check`.
        source: the input, where rows of it were lost and it is not where it was.
        runner: of the stages that are run again; None takes processes of this machine.

    Raises:
        ConfigError: there is no dataset.
        DatasetError: something is in the way, or the input is not there any more.
        StageError: some shards failed; what was mended is kept and the same call continues.
    """
    from curate.store.check import check
    from curate.store.dataset import Dataset
    from curate.store.lock import writing
    from pipelines.commands.curate import WRITES
    from pipelines.commands.repair import Repair
    from pipelines.runners.local import Local

    dataset = Dataset(directory)
    found = check(dataset, read_all)
    if not repair or found.whole:
        return found
    with writing(dataset.directory, *WRITES):
        while True:
            Repair(dataset, runner or Local()).mend(found.holes, source)
            before, found = found, check(dataset, read_all)
            # A table that was lost may have hidden what is wrong with those that rest on it.
            if set(found.holes) <= set(before.holes):
                return found
