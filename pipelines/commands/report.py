"""`caplab report`: find out what a directory is, and write its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from curate.base.errors import DatasetError
from curate.base.files import read_json
from curate.base.telling.summaries import Summary
from pipelines.terminal.options import PLACE
from pipelines.terminal.quiet import say, show


@click.command("report")
@click.argument("target", metavar="DIR_OR_RUN", type=PLACE)
@click.option("--selection", help="Selection to follow; all others have their funnel as well.")
@click.option("--compare", nargs=2, metavar="A B", help="Two caption sets to show side by side.")
@click.option("--open", "in_browser", is_flag=True, help="Open the report in the browser.")
def command(
    target: Path, selection: str | None, compare: tuple[str, str] | None, in_browser: bool
) -> None:
    """Write report.html, one self-contained file, for a dataset or a run."""
    say(f"reading {target}")
    show(report(target, selection, compare))
    if in_browser:
        import webbrowser

        page = target.absolute() / "report.html"
        if not webbrowser.open(page.as_uri()):
            say(f"no browser was found; open {page}")


@dataclass(frozen=True)
class ReportSummary(Summary):
    """Where the report is, and how large."""

    page: Path
    size: int
    """Bytes."""

    def text(self) -> str:
        """What the command prints."""
        return f"report: {self.page}"


def report(
    target: Path | str, selection: str | None = None, compare: tuple[str, str] | None = None
) -> ReportSummary:
    """Write TARGET/report.html for a dataset, an ablation, a training run or a demo directory.

    Args:
        selection: the dataset's selection to follow, in place of the usual one.
        compare: two caption sets to show side by side, in place of the usual ones.

    Raises:
        DatasetError: the directory is none of these.
    """
    from pipelines.report.build import write_report

    target = Path(target)
    directory = target.absolute()
    out = directory / "report.html"
    if (directory / "demo.json").exists():
        write_report(
            out,
            dataset_dir=directory / "dataset",
            run_dir=directory / "ablation",
            demo_dir=directory,
            selection=selection,
            compare=compare,
        )
    elif (directory / "dataset.json").exists():
        write_report(out, dataset_dir=directory, selection=selection, compare=compare)
    elif (directory / "run.json").exists():
        dataset = read_json(directory / "run.json").get("dataset_directory")
        known = dataset is not None and Path(dataset).is_dir()
        write_report(
            out,
            dataset_dir=dataset if known else None,
            run_dir=directory,
            selection=selection,
            compare=compare,
        )
    else:
        raise DatasetError(
            f"{target} is neither a dataset nor a finished run; give a directory that "
            f"`caplab curate`, `ablate`, `train` or `demo` wrote."
        )
    return ReportSummary(target / "report.html", out.stat().st_size)
