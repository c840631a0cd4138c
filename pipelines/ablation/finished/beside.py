"""Two studies, or two arms of studies, beside each other: `caplab compare A B`.

Nothing of it was declared beforehand, so nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import DatasetError
from curate.base.files import read_json
from curate.base.settings import nearest
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.store.claims import flat
from pipelines.ablation import verdicts
from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.metrics import ordered
from pipelines.ablation.pictures import read_kept
from pipelines.ablation.results import ALL, Place, Results, difference, read
from pipelines.ablation.runs import RECORD
from pipelines.ablation.schemas import SETS
from pipelines.statistics.interval import estimate


@dataclass(frozen=True)
class Side:
    """A study, and of it one arm or all.

    Attributes:
        arm: None for all.
    """

    directory: Path
    arm: str | None
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As it was asked for."""
        return str(self.directory) if self.arm is None else f"{self.directory}:{self.arm}"

    @property
    def arms(self) -> list[str]:
        """Those that are compared."""
        return [arm["name"] for arm in self.record["arms"]] if self.arm is None else [self.arm]


def side(place: str) -> Side | None:
    """The study that STUDY or STUDY:ARM names; None where there is no study.

    Raises:
        DatasetError: it has no such arm, or is not finished.
    """
    directory, arm = Path(place), None
    if not directory.exists() and ":" in place:
        folder, _, arm = place.rpartition(":")
        directory = Path(folder)
    run = directory / "run.json"
    record = read_json(run) if run.exists() else {}
    if record.get("kind") != "ablation":
        if (directory / RECORD).exists():
            raise DatasetError(f"{directory} is no finished study; `caplab ablate` continues it.")
        return None
    if not (directory / "results" / "images.parquet").exists():
        raise DatasetError(f"{directory} is no finished study; it has no results/images.parquet.")
    names = [own["name"] for own in record["arms"]]
    if arm is not None and arm not in names:
        raise DatasetError(f"{directory} has no arm {arm!r}; {nearest(arm, names)}")
    return Side(directory, arm, record)


@dataclass(frozen=True)
class Beside:
    """One metric of two arms on prompts of one form."""

    a: str
    b: str
    form: str
    metric: str
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p: float
    seeds: int
    line: str = field(repr=False)
    """The same in words."""


@dataclass(frozen=True)
class StudyComparison(Summary):
    """A minus B for every metric and form that both have."""

    names: tuple[str, str]
    rows: tuple[Beside, ...]

    def text(self) -> str:
        """What the command prints."""
        lines = [f"A {self.names[0]}", f"B {self.names[1]}"]
        for (a, b), pair in groupby(self.rows, lambda row: (row.a, row.b)):
            lines += ["", f"{'':<30}{a:>18}{b:>18}  A - B"]
            for form, rows in groupby(pair, lambda row: row.form):
                lines += [f"{form} prompts", *(row.line for row in rows)]
        return "\n".join(
            [*lines, "", "Not declared beforehand: exploratory, and nothing is claimed."]
        )


def compare_studies(a: Side, b: Side) -> StudyComparison:
    """A minus B for every metric and form that both have.

    Arms are paired by the seeds that both have; two studies by the arms of one name.

    Raises:
        DatasetError: they were trained, judged or asked otherwise, or share no arm.
    """
    _refuse(a, b)
    if a.arm is not None and b.arm is not None:
        pairs = [(a.arm, b.arm)]
    else:
        pairs = [(arm, arm) for arm in a.arms if arm in b.arms]
    if not pairs:
        raise DatasetError(f"{a.name} and {b.name} share no arm; name one each, as STUDY:ARM.")
    results = _together(a, b)
    rows = (row for one, other in pairs for row in _pair(results, f"A:{one}", f"B:{other}"))
    return StudyComparison((a.name, b.name), tuple(rows))


def _refuse(a: Side, b: Side) -> None:
    """What differs beside captions and data makes a difference that cannot be told apart."""
    one, other = (flat(dict(own.record.get("settings", {}).get("train", {}))) for own in (a, b))
    differing = sorted(n for n in {*one, *other} if one.get(n) != other.get(n))
    if differing:
        told = "; ".join(f"{n}: {one.get(n)!r} and {other.get(n)!r}" for n in differing[:3])
        raise DatasetError(
            f"{a.name} and {b.name} were trained with other settings ({told}), so a difference "
            f"could not be told apart."
        )
    judges = [{own["name"]: own["id"] for own in each.record.get("judges", [])} for each in (a, b)]
    for name in sorted(judges[0].keys() & judges[1].keys()):
        if judges[0][name] != judges[1][name]:
            raise DatasetError(
                f"{a.name} and {b.name} were judged by other {name} judges (options or weights "
                f"differ); judge one of them again."
            )


def _together(a: Side, b: Side) -> Results:
    """Both as one study, with arms A:NAME and B:NAME, of the prompts that both were asked.

    Raises:
        DatasetError: there is no such prompt.
    """
    images = [_read(own, "images", letter) for own, letter in ((a, "A"), (b, "B"))]
    sets = [_read(own, "sets", letter) for own, letter in ((a, "A"), (b, "B"))]
    ids = [set(table["prompt_id"].to_pylist()) for table in images]
    shared = ids[0] & ids[1]
    if not shared:
        raise DatasetError(f"{a.name} and {b.name} were asked no common prompt.")
    kept = [
        table.filter(pc.is_in(table["prompt_id"], pa.array(sorted(shared), pa.string())))
        for table in images
    ]
    # Metrics that one of them lacks become null there.
    joined = pa.concat_tables(kept, promote_options="permissive")
    # A whole set's score holds only where the sets were of the same prompts.
    whole = pa.concat_tables(sets) if ids[0] == ids[1] else SETS.empty_table()
    return read(joined, whole)


def _read(own: Side, name: str, letter: str) -> pa.Table:
    """A table with its arms' names behind a letter; a study without sets has none."""
    path = own.directory / "results" / f"{name}.parquet"
    if name == "sets" and not path.exists():
        return SETS.empty_table()
    table = read_kept(path, None, "`caplab ablate` with the study's file writes it anew")
    arms = pa.array([f"{letter}:{arm}" for arm in table["arm"].to_pylist()], pa.string())
    return table.set_column(table.column_names.index("arm"), "arm", arms)


def _pair(results: Results, a: str, b: str) -> Iterator[Beside]:
    """One pair of arms: form by form, metric by metric."""
    for place in results.places:
        if (place.wording, place.group) == (ALL, ALL):
            for name in ordered(results.metrics):
                if row := _row(results, a, b, place, name):
                    yield row


def _row(results: Results, a: str, b: str, place: Place, name: str) -> Beside | None:
    """One metric, None where an arm has no value."""
    one, other = (results.values(arm, place, name) for arm in (a, b))
    if one is None or other is None:
        return None
    known = metric_of(name)
    found, by_seed = difference(one, other, known.bounds(difference=True))
    if not found.defined:
        return None
    mean_a, mean_b = (estimate(own.matrix, own.intents).mean for own in (one, other))
    shown = "".join(f"{known.shown(mean):>18}" for mean in (mean_a, mean_b))
    how = amount(found.seeds, "seed") + ("" if by_seed else ", not paired")
    p = f", p {found.p_value:.2g}" if found.has_interval else ""
    line = f"  {known.column:<28}{shown}  {verdicts.size(known, found)} ({how}{p})"
    return Beside(
        a,
        b,
        form=place.form,
        metric=name,
        mean_a=mean_a,
        mean_b=mean_b,
        difference=found.mean,
        low=found.low,
        high=found.high,
        p=found.p_value,
        seeds=found.seeds,
        line=line,
    )
