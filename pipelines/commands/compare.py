"""`caplab compare`: two training runs or studies side by side, where they may be compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate.base.errors import DatasetError
from curate.base.telling.summaries import Summary
from pipelines.terminal.quiet import show

if TYPE_CHECKING:
    from pipelines.ablation.finished.beside import StudyComparison

# What may differ between runs that are compared for their captions; the receipt says how.
_OF_CAPTIONS = ("settings.captions.", "settings.missing_captions")


@click.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
def command(a: str, b: str) -> None:
    """Print how two finished training runs, studies, or arms of studies differ.

    Runs: settings, shares of the captions drawn and validation losses. Runs are refused whose
    receipts are not what their settings declare, or which differ in more than their captions. One
    run each is exploratory and claims nothing.

    Studies of `caplab ablate`, or STUDY:ARM: every metric's difference with its interval, paired by
    the seeds that both have. They are refused where trained, judged or asked otherwise.
    """
    show(beside(a, b))


def beside(a: str, b: str) -> Comparison | StudyComparison:
    """Two runs, or two studies or arms of studies, held beside each other.

    Raises:
        DatasetError: they cannot be compared.
    """
    from pipelines.ablation.finished.beside import compare_studies, side

    one, other = side(a), side(b)
    if one is not None and other is not None:
        return compare_studies(one, other)
    if one is not None or other is not None:
        raise DatasetError(f"Of {a} and {b} one is a study and one is not; compare like with like.")
    return compare(a, b)


@dataclass(frozen=True)
class Comparison(Summary):
    """Two runs that differ in their captions alone.

    Attributes:
        settings: name -> value in A, value in B, of those that differ.
        shares: kind -> share of the captions drawn in A and in B, before dropout.
        validation: kind -> validation loss in A and in B; None where a run did not look.
    """

    names: tuple[str, str]
    settings: dict[str, tuple[Any, Any]]
    shares: dict[str, tuple[float, float]]
    validation: dict[str, tuple[float | None, float | None]]

    def text(self) -> str:
        """What the command prints."""
        a, b = self.names
        lines = [f"A {a}", f"B {b}", "", "settings that differ:"]
        lines += [f"  {name}: {one!r} | {two!r}" for name, (one, two) in self.settings.items()]
        lines += [] if self.settings else ["  none"]
        lines += ["", f"{'captions drawn':<20}{'A':>10}{'B':>10}"]
        lines += [
            f"  {kind:<18}{one:>10.2%}{two:>10.2%}" for kind, (one, two) in self.shares.items()
        ]
        lines += ["", f"{'validation loss':<20}{'A':>10}{'B':>10}{'B - A':>10}"]
        for kind, (one, two) in self.validation.items():
            both = f"{two - one:>+10.4f}" if one is not None and two is not None else ""
            lines.append(f"  {kind:<18}{_loss(one)}{_loss(two)}{both}")
        lines += ["", "one run each: exploratory. Losses of different captions are no quality."]
        return "\n".join(lines)


def compare(run_a: Path | str, run_b: Path | str) -> Comparison:
    """Hold two runs beside each other.

    Raises:
        DatasetError: a run is not finished, its receipt is not what it declared, or the two differ
            in more than their captions.
    """
    runs = [_Run.read(Path(run)) for run in (run_a, run_b)]
    a, b = (run.identity for run in runs)
    differing = {
        name: (a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)
    }
    if runs[0].drawn == runs[1].drawn:
        # The hash is of pictures and of the captions that a run draws: only these are others.
        differing.pop("data.training", None)
    others = [name for name in differing if not name.startswith(_OF_CAPTIONS)]
    if others:
        told = "; ".join(f"{n}: {differing[n][0]!r} and {differing[n][1]!r}" for n in others[:3])
        raise DatasetError(
            f"{runs[0].directory} and {runs[1].directory} differ in more than their captions "
            f"({told}), so a difference could not be told apart."
        )
    kinds = sorted({*runs[0].shares, *runs[1].shares})
    looked = sorted({*runs[0].validation, *runs[1].validation})
    first, second = runs
    return Comparison(
        names=(str(first.directory), str(second.directory)),
        settings=differing,
        shares={k: (first.shares.get(k, 0.0), second.shares.get(k, 0.0)) for k in kinds},
        validation={k: (first.validation.get(k), second.validation.get(k)) for k in looked},
    )


@dataclass(frozen=True)
class _Run:
    directory: Path
    identity: dict[str, Any]
    shares: dict[str, float]
    validation: dict[str, float]
    drawn: dict[str, int]
    """How often each picture was, by its key."""

    @staticmethod
    def read(directory: Path) -> _Run:
        """A finished run whose receipt is what it declared.

        Raises:
            DatasetError: it is not.
        """
        from curate.base.files import read_json, read_record
        from curate.store.claims import flat
        from train.data.receipt import realised_shares, refuse_wrong_receipt

        if not (directory / "summary.json").exists():
            raise DatasetError(f"{directory} is no finished training run; it has no summary.json.")
        summary = read_json(directory / "summary.json")
        identity = read_record(directory / "run.json").get("identity", {})
        refuse_wrong_receipt(directory)
        return _Run(
            directory,
            {**flat(identity), "steps": summary["steps"]},
            realised_shares(directory),
            {str(kind): float(loss) for kind, loss in summary.get("validation", {}).items()},
            _drawn(directory / "receipt.parquet"),
        )


def _drawn(receipt: Path) -> dict[str, int]:
    import pyarrow.parquet as pq

    rows = pq.read_table(receipt, columns=["key", "draws"])
    sums = rows.group_by("key").aggregate([("draws", "sum")])
    return dict(zip(sums["key"].to_pylist(), sums["draws_sum"].to_pylist(), strict=True))


def _loss(value: float | None) -> str:
    return f"{'none':>10}" if value is None else f"{value:>10.4f}"
