"""`caplab ablate`: pipelines.ablation.run is its function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from pipelines.ablation.settings import AblateSettings
from pipelines.terminal.options import PLACE, dataset_argument, settings_options
from pipelines.terminal.quiet import say

IN_YAML = (
    "arms",
    "caption_sets",
    "sweeps",
    "contrasts",
    "no_worse",
    "interactions",
    "trends",
    "primary",
)
"""What is declared and belongs into a file that is kept."""


@click.command("ablate")
@dataset_argument
@click.option("--out", required=True, type=PLACE, help="Run directory to make or continue.")
@click.option(
    "--dry-run", is_flag=True, help="Check every part, time a step, print the plan, train none."
)
@settings_options(AblateSettings, hidden=IN_YAML, as_given=True)
@click.option("--arms-file", "--arms", "arms_file", type=PLACE, help="YAML of the experiment.")
def command(
    directory: Path,
    out: Path,
    dry_run: bool,
    arms_file: Path | None,
    config: Path | None,
    given: dict[str, Any],
) -> None:
    """Train arms that differ in their captions or data, and measure the difference.

    Order, initial weights, noise and compute are the same for every arm of a seed. Differences are
    paired by seed, with one interval over seeds and prompts; what was declared is claimed where its
    p, adjusted by Holm, is below .05 (docs/ablation.md).

    A finished study grows: with more seeds, arms, contrasts, prompts, noises or judges in the file,
    the same command trains, draws and judges what is missing.

    Captions, judges, prompts, metric and form are checked before a step is trained, also by
    --dry-run, and words outside the models' vocabulary are counted: over 5% of a caption kind or a
    form of the prompts are refused unless --allow-unknown-words is given.
    """
    if arms_file is not None and config is not None:
        raise ConfigError("Give the experiment by --arms or by --config, not by both.")
    settings = load_settings(AblateSettings, arms_file or config, given)
    say(f"reading the captions of {directory}")
    if dry_run:
        from pipelines.ablation.plan import plan

        click.echo(plan(directory, settings, out))
        return
    from pipelines.ablation.run import ablate

    click.echo(ablate(directory, out, settings).text())
