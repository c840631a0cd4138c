"""`python -m pipelines.bench.ablation.results --out DIR`: every committed answer about captions.

Makes the data, runs the studies of studies/*.yaml one after the other in one folder of runs, and
writes docs/results. Killed, it goes on; what is there is kept.

OUT/world, OUT/dataset   study_data
OUT/runs                 training runs that the studies share
OUT/NAME                 a study: `caplab report OUT/NAME` shows it
OUT/seconds.json         wall time that each study has taken, over all calls
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

from curate.base.errors import ConfigError
from curate.base.files import read_json, write_json
from curate.base.progress import tell
from curate.base.settings import load_settings, nearest
from curate.store.dataset import Dataset
from pipelines.ablation.kept import Kept
from pipelines.ablation.run import ablate
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import prepare
from pipelines.bench.ablation.study_data import DataSize, make_data
from pipelines.bench.ablation.study_files import NAMES, study_file
from recaption.transforms.derivation import DOSED
from recaption.transforms.derive import derive

DOCS = Path("docs/results")


@dataclass(frozen=True)
class Size:
    """How large everything is; `changed` stands in place of what the studies' files say."""

    data: DataSize = field(default_factory=DataSize)
    changed: Mapping[str, Any] = field(default_factory=dict)
    scenes: int | None = None


SMALL = Size(
    DataSize(rows=400, rows_per_shard=100, pairs=512, epochs=1.0, checkpoints=(0.25, 0.5, 1.0)),
    {"seeds": [0], "noises": 1, "train": {"model": "world-small", "steps": 12, "batch_size": 16}},
    scenes=6,
)
"""All of it in a minute or two; its figures say nothing."""


def study_settings(name: str, out: Path, size: Size | None = None) -> AblateSettings:
    """The study of that name, over the data and among the runs of `out`.

    Raises:
        ConfigError: its file is wrong.
    """
    size = size or Size()
    declared = yaml.safe_load(study_file(name).read_text(encoding="utf-8"))
    declared |= size.changed
    prompts = declared["prompts"] | {"exclude_scenes": str(out / "world" / "truth.parquet")}
    if size.scenes is not None:
        prompts["scenes"] = size.scenes
    if size.changed:  # A/A with as many seeds as the others
        for arm in declared["arms"].values():
            if "seeds" in arm:
                arm["seeds"] = arm["seeds"][: len(declared["seeds"])]
    workers = size.data.workers
    more = {"prompts": prompts, "runs": str(out / "runs"), "workers": workers, "runner": "local"}
    return load_settings(AblateSettings, None, declared | more)


def make_results(
    out: Path, docs: Path, names: Sequence[str] = NAMES, size: Size | None = None
) -> None:
    """Make or continue all of it.

    Raises:
        StageError: a run failed; the same call continues.
    """
    from pipelines.bench.ablation.caption_scores import write_prediction
    from pipelines.bench.ablation.result_pages import Finished, write_index, write_page

    size = size or Size()
    out = out.absolute()
    with _timed(out, "data"):
        dataset = make_data(out, size.data)
    for name in names:
        settings = study_settings(name, out, size)
        with _timed(out, name):
            tell(ablate(dataset.directory, out / name, settings).text())
        study = Finished.read(out, name)
        write_page(docs, study, seconds(out)[name], changed_shares(dataset, settings))
    done = [name for name in NAMES if is_finished(out / name)]
    with _timed(out, "predict"):
        write_prediction(docs, out, done)
    write_index(docs, [Finished.read(out, name) for name in done], seconds(out))


def is_finished(study: Path) -> bool:
    """Whether a study has its tables, and every run that it is made of by now."""
    if not (study / "run.json").exists():
        return False
    return all((cell.directory / "summary.json").exists() for cell in Kept.open(study).cells)


def changed_shares(dataset: Dataset, settings: AblateSettings) -> dict[str, float]:
    """Dosed caption set -> the share of words or clauses that was really changed."""
    found = {}
    for name, derivation in settings.caption_sets.items():
        if derivation.rule in DOSED:
            made = derive(dataset, name, derivation)  # it is there, and is only counted
            found[name] = made.changed / max(made.changeable, 1)
    return found


def planned(out: Path, size: Size | None = None) -> str:
    """How many runs each study has, and how many of them no study before has; trains none.

    The data must be there, since a run's identity is that of what it learns from.
    """
    lines: list[str] = []
    known: set[str] = set()
    for name in NAMES:
        study = prepare(out / "dataset", study_settings(name, out, size), out / name)
        runs = {run.id for run in study.runs}
        asked = study.asked.rows.num_rows
        pictures = len(study.runs[0].keys)
        lines.append(
            f"{name}: {len(study.cells)} of arms and seeds, {len(runs)} runs, {len(runs - known)} "
            f"new; {asked} pictures a run; {pictures} training pictures"
        )
        known |= runs
    return "\n".join([*lines, f"{len(known)} runs in all"])


def seconds(out: Path) -> dict[str, float]:
    """Wall seconds of each step so far."""
    path = out / "seconds.json"
    return dict(read_json(path)) if path.exists() else {}


@contextmanager
def _timed(out: Path, name: str) -> Iterator[None]:
    """Adds the block's wall time to what the step took before, also where it fails."""
    began = time.monotonic()
    try:
        yield
    finally:
        out.mkdir(parents=True, exist_ok=True)
        taken = seconds(out)
        write_json(
            out / "seconds.json", {**taken, name: taken.get(name, 0.0) + time.monotonic() - began}
        )


@click.command()
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where to work.")
@click.option("--docs", type=click.Path(path_type=Path), help="Default docs/results.")
@click.option("--study", "names", multiple=True, help="Only this one; may be repeated.")
@click.option("--small", is_flag=True, help="Try all of it in minutes; docs go to OUT/docs.")
@click.option("--plan", is_flag=True, help="Make the data and count the runs; train none.")
def main(out: Path, docs: Path | None, names: tuple[str, ...], small: bool, plan: bool) -> None:
    """Make, or continue, every committed answer about captions."""
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"There is no study {name!r}; {nearest(name, list(NAMES))}")
    size = SMALL if small else Size()
    out = out.absolute()
    if plan:
        with _timed(out, "data"):
            make_data(out, size.data)
        click.echo(planned(out, size))
        return
    make_results(out, docs or (out / "docs" if small else DOCS), names or NAMES, size)


if __name__ == "__main__":
    main()
