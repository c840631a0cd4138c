"""`caplab bench NAME`: one subcommand a benchmark, each with its own options.

Imports happen inside the subcommands, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.bench.common.figures import Figure

PLACE = click.Path(path_type=Path)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
out = click.option("--out", type=PLACE, help="Where to work; default a new folder.")


@click.group()
def bench() -> None:
    """Measure Caption Lab against its peers, in one run on this machine.

    Peers are installed into environments of their own (~/.cache/caption-lab/peers) from the pinned
    files in pipelines/bench/requirements. Every figure is named, and speed is a ratio.
    """


def benchmark(name: str) -> Callable[[Callable[..., list[Figure]]], click.Command]:
    """A subcommand that prints the figures which the decorated function returns."""

    def decorate(measure: Callable[..., list[Figure]]) -> click.Command:
        def run(as_json: bool, **given: Any) -> None:
            from pipelines.bench.common.figures import render

            click.echo(render(measure(**given), as_json))

        run.__doc__ = measure.__doc__
        run.__click_params__ = getattr(measure, "__click_params__", [])  # type: ignore[attr-defined]
        return bench.command(name)(as_json(out(run)))

    return decorate


def pairs_option(required: bool, words: str = "") -> Callable[[Any], Any]:
    """Folders of pictures with texts."""
    words = f"Folder with captions.jsonl and pictures; may be repeated.{words}"
    return click.option(
        "--pairs", "folders", type=PLACE, multiple=True, required=required, help=words
    )
