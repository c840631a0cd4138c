"""`caplab export-images`: a study's pictures in the folders that the official scorers read."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate.base.errors import ConfigError, DatasetError
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from pipelines.terminal.options import PLACE
from pipelines.terminal.quiet import say, show

if TYPE_CHECKING:
    import pyarrow as pa

_LAYOUTS = ("geneval", "geneval2", "t2i-compbench", "dpg", "folder")


@click.command("export-images")
@click.argument("place", metavar="STUDY_OR_RUN", type=PLACE)
@click.option("--layout", required=True, type=click.Choice(_LAYOUTS), help="Whose scorer reads it.")
@click.option("--out", required=True, type=PLACE, help="A new or empty directory.")
@click.option("--form", default="", help="Prompts of this form; may be left out if there is one.")
@click.option("--wording", default="", help="Prompts of this wording; likewise.")
def command(place: Path, layout: str, out: Path, form: str, wording: str) -> None:
    """Write pictures as PNG in a benchmark's own layout: OUT/ARM/seed-N/... of a study, OUT/... of
    one run.

    A benchmark knows its prompts by their text, so a prompt that was reworded goes by its intent.
    DPG-Bench's grids are named by "item_id" of an intent that is a record, else by the intent's
    id; its scorer is run with --resolution SIDE and --pic-num NOISES.

    \b
    Examples:
      caplab export-images runs/study --layout geneval --out scored/geneval
      caplab export-images runs/study/runs/alt-0123456789abcdef/seed-0 \\
          --layout folder --out look
    """
    say(f"writing pictures of {place} to {out}")
    show(export_images(place, layout, out, form, wording))


@dataclass(frozen=True)
class ImagesSummary(Summary):
    """Folder -> how many pictures it holds."""

    pictures: dict[str, int]

    def text(self) -> str:
        """What the command prints."""
        return "\n".join(f"{name}: {amount(n, 'picture')}" for name, n in self.pictures.items())


def export_images(
    place: Path, layout: str, out: Path, form: str = "", wording: str = ""
) -> ImagesSummary:
    """Write the pictures of a study, or of one of its runs.

    Raises:
        ConfigError: several forms or wordings and none is named, a name that is not there, prompts
            that the layout cannot take, or `out` holds something.
        DatasetError: `place` is no study and no run that drew, or pictures are missing.
    """
    from PIL import Image

    from pipelines.ablation.pictures import encoded
    from pipelines.judges.layouts import LAYOUTS, Shown, write
    from pipelines.judges.prompts import PROMPTS

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds something already; choose a new or empty --out.")
    written = {}
    for run, target, wanted in _wanted(place.absolute(), out):
        rows = _chosen(_chosen(wanted, "form", form), "wording", wording)
        webp = encoded(run, rows.column("picture_id").to_pylist())
        pictures: dict[str, dict[int, Any]] = {}
        prompts = {}
        for row, own in zip(rows.to_pylist(), webp, strict=True):
            noises = pictures.setdefault(row["prompt_id"], {})
            if row["noise"] in noises:
                raise ConfigError(
                    f"{run} drew the same prompts in several ways (steps, guidance, noises); "
                    f"export the pictures of its study instead."
                )
            noises[row["noise"]] = Image.open(io.BytesIO(own)).convert("RGB")
            prompts[row["prompt_id"]] = {name: row[name] for name in PROMPTS.names}
        shown = [
            Shown(prompts[prompt_id], [own[noise] for noise in sorted(own)])
            for prompt_id, own in pictures.items()
        ]
        written[str(target)] = write(LAYOUTS[layout](shown, target), target)
    return ImagesSummary(written)


def _wanted(place: Path, out: Path) -> list[tuple[Path, Path, pa.Table]]:
    """(run, where its pictures go, its rows of PROMPTS with noise and picture_id)."""
    from pipelines.ablation.kept import Kept
    from pipelines.ablation.pictures import asked_so_far
    from pipelines.ablation.runs import RECORD

    if (place / RECORD).exists():
        kept = Kept.open(place)
        return [
            (cell.directory, out / cell.arm / f"seed-{cell.seed}", cell.wanted(kept.asked))
            for cell in kept.cells
        ]
    wanted = asked_so_far(place)
    if wanted is None:
        raise DatasetError(f"{place} is no study, nor a run that drew pictures.")
    return [(place, out, wanted)]


def _chosen(rows: pa.Table, column: str, name: str) -> pa.Table:
    """Rows of one form or wording."""
    import pyarrow.compute as pc

    names = sorted(set(rows.column(column).to_pylist()))
    if not name and len(names) > 1:
        raise ConfigError(f"The prompts have several {column}s ({', '.join(names)}); name one.")
    if name and name not in names:
        raise ConfigError(f"No prompt has the {column} {name!r}; there are {', '.join(names)}.")
    return rows.filter(pc.equal(rows.column(column), name)) if name else rows
