"""Judge kept pictures later: of a whole study, or of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.errors import DatasetError, StageError
from curate.base.progress import progress
from curate.store.lock import hold
from pipelines.ablation.judged import JudgeSpec, judge_missing, scores, set_scores
from pipelines.ablation.kept import RECORD, Kept
from pipelines.ablation.metrics import metric
from pipelines.ablation.pictures import asked_so_far, missing
from pipelines.ablation.run import summarise
from pipelines.judges.registry import judge_id, make_judge
from pipelines.runners.choice import open_runner
from pipelines.runners.hand_out import Failed, hand_out
from pipelines.runners.settings import RunnerSettings


def judge_kept(
    place: Path | str,
    name: str,
    options: Mapping[str, Any],
    device: str,
    workers: int = 1,
    runner: RunnerSettings | None = None,
) -> str:
    """Have a judge score the kept pictures of a study or a run; what it has scored stays.

    Args:
        place: OUT of a study, whose tables then hold the judge's metrics, or a run's directory.
        device: of the judge; cpu, cuda or cuda:N.

    Returns:
        What there is to read: the study's table, or the means of the run.

    Raises:
        ConfigError: the judge cannot be had.
        DatasetError: there is nothing to judge.
        StageError: the judge failed.
    """
    place = Path(place).absolute()
    judge = make_judge(name, options, device)
    spec = JudgeSpec(name, dict(options), judge_id(name, judge), tuple(judge.limits))
    if (place / RECORD).exists():
        with hold(place):
            return _judge_study(place, spec, device, workers, runner or RunnerSettings())
    wanted = asked_so_far(place)
    if wanted is None:
        raise DatasetError(
            f"{place} has no kept pictures: it is no study, nor a run that drew any; `caplab "
            f"evaluate {place} --prompts FILE` draws some."
        )
    with hold(place):
        judge_missing(place, spec, wanted, device)
    return run_text(place, [spec], wanted)


def run_text(run: Path, specs: list[JudgeSpec], wanted: pa.Table) -> str:
    """Means of one run's pictures by form and wording, as plain text."""
    forms, wordings = (wanted[name].to_pylist() for name in ("form", "wording"))
    places = np.array([" / ".join(pair) for pair in zip(forms, wordings, strict=True)])
    lines = [f"{run}", f"{'form / wording':<28}{'metric':<32}{'mean':>10}{'pictures':>10}"]
    for spec in specs:
        for name, values in scores(run, spec, wanted).items():
            for own in dict.fromkeys(places.tolist()):
                here = values[(places == own) & ~np.isnan(values)]
                if len(here):
                    shown = metric(name).shown(float(here.mean()))
                    lines.append(f"{own:<28}{metric(name).column:<32}{shown:>10}{len(here):>10}")
        for row in set_scores(run, spec, wanted):
            own, name = f"{row['form']} / {row['wording']}", row["metric"]
            shown = metric(name).shown(row["value"])
            lines.append(
                f"{own:<28}{metric(name).column:<32}{shown:>10}{row['pictures']:>10}"
                f"  (floor {metric(name).shown(row['floor'])})"
            )
    lines.append("one model: exploratory; `caplab ablate` compares with seeds and intervals.")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Look:
    """One run's pictures, for a worker."""

    directory: Path
    wanted: pa.Table


class _Judging:
    """Judges run after run; the judge is made once a process."""

    def __init__(self, spec: JudgeSpec, device: str) -> None:
        self._spec, self._device = spec, device

    def __call__(self, task: _Look) -> None:
        judge_missing(task.directory, self._spec, task.wanted, self._device)


def _judge_study(
    out: Path, spec: JudgeSpec, device: str, workers: int, settings: RunnerSettings
) -> str:
    kept = Kept.open(out)
    looks = [_Look(cell.directory, cell.wanted(kept.asked)) for cell in kept.cells]
    if lacking := sum(missing(look.directory, look.wanted).num_rows for look in looks):
        raise DatasetError(
            f"{out} lacks {lacking} pictures; the `caplab ablate` that made it draws them."
        )
    looks = [look for look in looks if spec.is_missing(look.directory, look.wanted)]
    failed = []
    with progress(len(looks), f"judge {spec.name}", "run") as bar, open_runner(settings) as runner:
        # Equal arms share a run, and two workers would do the same work.
        distinct = list({(str(w.directory), w.wanted["picture_id"][0]): w for w in looks}.values())
        if distinct:
            crew = runner.workers(
                _Judging(spec, device), min(workers, len(distinct)), here=workers == 1
            )
            with crew as hands:
                for look, outcome in hand_out(hands, distinct):
                    bar.update()
                    if isinstance(outcome, Failed):
                        failed.append(f"{look.directory}: {outcome.reason}")
    if failed:
        raise StageError(f"{len(failed)} runs could not be judged, first {failed[0]}.")
    kept.with_judge(spec)
    return summarise(out).text()
