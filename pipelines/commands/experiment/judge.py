"""`caplab judge`: pipelines.ablation.evaluate is its function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from curate.base.errors import ConfigError
from curate.base.settings import device_of
from pipelines.terminal.options import PLACE
from pipelines.terminal.quiet import say, show


@click.command("judge")
@click.argument("place", metavar="STUDY_OR_RUN", type=PLACE)
@click.option("--judge", "name", required=True, help="world, clip, ... or module:Class.")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the judge; may be repeated."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1))
def command(place: Path, name: str, options: tuple[str, ...], device: str, workers: int) -> None:
    """Score the kept pictures of a study, or of one run, with one more judge.

    Pictures that it has scored are not scored again. A study's tables are written anew and hold its
    metrics beside those of the study's own judges.
    """
    given = parsed(options)
    say(f"judging the pictures of {place}")
    from pipelines.ablation.evaluate import judge_kept

    show(judge_kept(place, name, given, device_of(device), workers))


def parsed(options: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` each, values as in YAML.

    Raises:
        ConfigError: one is not of that form.
    """
    values: dict[str, Any] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not (separator and key.strip()):
            raise ConfigError(f"--option {option!r} is not of the form key=value.")
        try:
            values[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"The value of --option {option!r} is no YAML.") from error
    return values
