"""`caplab select`: SQL over stored scores; curate.selection.select is its function."""

from __future__ import annotations

from pathlib import Path

import click

from curate.selection.settings import SelectSettings
from pipelines.terminal.options import dataset_argument, settings_options
from pipelines.terminal.quiet import show


def _list_presets(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    from curate.selection.presets import describe_presets

    if wanted and not context.resilient_parsing:
        show(describe_presets())
        context.exit()


@click.command("select")
@dataset_argument
@settings_options(SelectSettings)
@click.option(
    "--list-presets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_presets,
    help="Print every preset with its rule, numbers, needs and source.",
)
def command(directory: Path, settings: SelectSettings) -> None:
    """Select samples by SQL over stored scores; pictures are never touched.

    \b
    Examples:
      caplab select data/mine --name good \\
          --where "clip_similarity >= 0.28 and aesthetic >= 5 and nsfw < 0.5"
      caplab select data/mine --preset datacomp-clip --preset-values fraction=0.2
      caplab select data/mine --name both \\
          --where "in_selection('a') and in_selection('b')"

    Prints the funnel: what each rule removes alone, and what it removes in order. Copies are
    dropped last, among the samples that pass everything else.
    """
    from curate.selection.select import select
    from curate.store.dataset import Dataset

    show(select(Dataset.open(directory), settings))
