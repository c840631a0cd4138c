"""`caplab ablate`: pipelines.ablation.run is its function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from pipelines.ablation.settings import AblateSettings
from pipelines.terminal.options import PLACE, settings_options
from pipelines.terminal.quiet import say, show

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
@click.argument("directory", metavar="DIR", type=PLACE, required=False)
@click.option("--out", type=PLACE, help="Study to make, to continue or to add to.")
@click.option(
    "--dry-run", is_flag=True, help="Check every part, time a step, print the plan, train none."
)
@click.option(
    "--plan",
    "pilot",
    type=PLACE,
    metavar="STUDY",
    help="Print how many seeds, prompts and noises claim --detect, from this finished study.",
)
@click.option(
    "--detect", type=float, help="With --plan: difference to claim, in points of a share."
)
@settings_options(AblateSettings, hidden=IN_YAML, as_given=True)
@click.option("--arms-file", "--arms", "arms_file", type=PLACE, help="YAML of the experiment.")
def command(
    directory: Path | None,
    out: Path | None,
    dry_run: bool,
    pilot: Path | None,
    detect: float | None,
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
    if (pilot is None) != (detect is None):
        raise ConfigError("--plan STUDY and --detect POINTS go together.")
    if pilot is not None and detect is not None:
        show(planned(pilot, settings if arms_file or config else None, detect))
        return
    if directory is None or out is None:
        raise ConfigError("Give the dataset, as in `caplab ablate DATASET --out STUDY`.")
    say(f"reading the captions of {directory}")
    if dry_run:
        from pipelines.ablation.plan import plan

        show(plan(directory, settings, out))
        return
    from pipelines.ablation.run import ablate

    show(ablate(directory, out, settings))


def planned(pilot: Path, settings: AblateSettings | None, detect: float) -> str:
    """The size of the next study, with the tests that `settings` declares, or the pilot's own."""
    from pipelines.ablation.finished.planning import plan_next
    from pipelines.ablation.kept import Kept

    declared = (settings or Kept.open(pilot).settings).declaration()
    return plan_next(pilot, declared, detect)
