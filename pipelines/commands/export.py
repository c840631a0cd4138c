"""`caplab export`: a selection in a trainer's layout; curate.export.run is its function."""

from __future__ import annotations

from pathlib import Path

import click

from curate.export.settings import ExportSettings
from pipelines.terminal.options import PLACE, dataset_argument, settings_options
from pipelines.terminal.quiet import say, show


@click.command("export")
@dataset_argument
@click.option("--out", required=True, type=PLACE, help="Directory to make or continue.")
@settings_options(
    ExportSettings,
    instead={
        "captions": click.option(
            "--captions",
            metavar="KIND|KIND=SHARE,...",
            help="One caption kind, or the share of each.",
        )
    },
)
def command(directory: Path, out: Path, settings: ExportSettings) -> None:
    """Write a selection with one caption a picture, in the layout that a trainer reads.

    Pictures are copied unchanged into shards that are equally full. Samples that lack the asked
    caption are left out and counted, with their reasons in OUT/export/left_out.parquet. A killed
    export continues; OUT/export/summary.json says that it is finished. OUT/README.md is a dataset
    card with funnel, scores and provenance; fill in the licence.

    \b
    Examples:
      caplab export data/mine --selection good --format webdataset \\
          --captions descriptive=0.95,alt=0.05 --out exports/good
      caplab export data/mine --selection good --format parquet \\
          --captions descriptive --out exports/hf   # load_dataset("exports/hf")
      caplab export data/mine --captions short --format folder --layout kohya \\
          --out exports/lora
      caplab export data/mine --captions short --format folder \\
          --layout simpletuner --resolution 1024 --out exports/tuner
    """
    say(f"planning an export to {out}")
    from curate.export.run import export
    from curate.store.dataset import Dataset

    show(export(Dataset.open(directory), out, settings))
