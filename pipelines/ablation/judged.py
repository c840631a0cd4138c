"""How pictures were judged: kept for each judge, and what is missing is judged.

RUN/judged/<judge id>/<hash>.parquet    picture_id, prompt_id, a float64 column a metric
RUN/judged/<judge id>/sets.parquet      set_id, form, wording, metric, value, floor, pictures
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.base.errors import CaplabError, ConfigError, DatasetError, StageError
from curate.base.files import atomic_path, fingerprint
from curate.base.registry import said, tried
from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.pictures import (
    AT_ONCE,
    pairs,
    pictures_of,
    read_kept,
    seconds_in,
    took,
)
from pipelines.ablation.runs import REFERENCE, studied_id
from pipelines.judges.prompts import PROMPTS
from pipelines.judges.protocol import Judge, Pictures, SetJudge
from pipelines.judges.registry import judge_class, judge_id, kept_judge

FOLDER, SETS_FILE = "judged", "sets.parquet"
SETS = pa.schema(
    [
        ("set_id", pa.string()),  # of its pictures
        *((name, pa.string()) for name in ("form", "wording", "metric")),
        *((name, pa.float64()) for name in ("value", "floor")),
        ("pictures", pa.int64()),
    ]
)


@dataclass(frozen=True)
class JudgeSpec:
    """A judge as it travels to a worker."""

    name: str
    options: Mapping[str, Any]
    id: str
    metrics: tuple[str, ...]
    limits: tuple[str, ...]

    @staticmethod
    def of(name: str, options: Mapping[str, Any], device: str) -> JudgeSpec:
        """The judge of a name, which is made on the way.

        Raises:
            ConfigError: it cannot be made.
        """
        judge = kept_judge(name, json.dumps(dict(options), sort_keys=True), device)
        own = judge_id(name, judge)
        return JudgeSpec(name, dict(options), own, tuple(judge.metrics), tuple(judge.limits))

    def told(self) -> dict[str, Any]:
        """As study.json lists it."""
        return {**vars(self), "options": dict(self.options)}

    def made(self, device: str) -> Judge:
        """The judge itself, once a process."""
        return kept_judge(self.name, json.dumps(dict(self.options), sort_keys=True), device)

    @property
    def of_sets(self) -> bool:
        """Whether it scores sets of pictures."""
        return issubclass(judge_class(self.name), SetJudge)

    def is_missing(self, run: Path, wanted: pa.Table) -> bool:
        """Whether it has not scored all of `wanted`."""
        if self.of_sets:
            known = set(stored_sets(run, self.id).column("set_id").to_pylist())
            return any(set_id(own) not in known for own in _groups(wanted).values())
        there = judged(run, self.id)
        return any(pair not in there for pair in pairs(wanted))


def refuse_shared_metrics(judges: Sequence[JudgeSpec]) -> None:
    """
    Raises:
        ConfigError: two give one metric, which would be one column.
    """
    owner: dict[str, str] = {}
    for spec in judges:
        for metric in spec.metrics:
            if other := owner.get(metric):
                raise ConfigError(
                    f"The judges {other} and {spec.name} both give the metric {metric}."
                )
            owner[metric] = spec.name


def judged(run: Path, judge_id: str) -> dict[tuple[str, str], tuple[pa.Table, int]]:
    """(picture, prompt) -> the table and the row of its scores."""
    found: dict[tuple[str, str], tuple[pa.Table, int]] = {}
    for path in sorted((run / FOLDER / judge_id).glob("*.parquet")):
        if path.name == SETS_FILE:
            continue
        table = _read(path, ("picture_id", "prompt_id"))
        found |= {pair: (table, row) for row, pair in enumerate(pairs(table))}
    return found


def judge_missing(run: Path, spec: JudgeSpec, wanted: pa.Table, device: str) -> None:
    """Have a judge score what it has not scored of `wanted` (`Asked.of`), and keep that.

    Raises:
        StageError: the judge raises, or gives no column of a number a picture.
    """
    if not spec.is_missing(run, wanted):
        return
    judge = spec.made(device)
    if isinstance(judge, SetJudge):
        _score_sets(run, spec, judge, wanted)
        return
    there = judged(run, spec.id)
    rows = [row for row, pair in enumerate(pairs(wanted)) if pair not in there]
    _score(run, spec, judge, wanted.take(pa.array(rows, pa.int64())))


def scores(run: Path, spec: JudgeSpec, wanted: pa.Table) -> dict[str, NDArray[np.float64]]:
    """Metric -> (N,) values of the rows of `wanted`.

    Raises:
        DatasetError: one was not judged.
    """
    there = judged(run, spec.id)
    if spec.of_sets:
        return {}
    places = [there.get(pair) for pair in pairs(wanted)]
    if None in places:
        raise DatasetError(
            f"{places.count(None)} pictures of {run} were not judged by {spec.name}; the same "
            f"command judges them."
        )
    tables = {id(place[0]): place[0] for place in places if place is not None}
    columns: dict[str, NDArray[np.float64]] = {}
    for name in dict.fromkeys(n for t in tables.values() for n in t.column_names[2:]):
        arrays = {key: table.column(name).to_numpy() for key, table in tables.items()}
        columns[name] = np.array([arrays[id(p[0])][p[1]] for p in places if p is not None], float)
    return columns


def set_scores(run: Path, spec: JudgeSpec, wanted: pa.Table) -> list[dict[str, Any]]:
    """Rows of what a judge of sets says of the forms and wordings of `wanted`."""
    ids = [set_id(own) for own in _groups(wanted).values()]
    table = stored_sets(run, spec.id)
    rows: list[dict[str, Any]] = table.filter(
        pc.is_in(table.column("set_id"), pa.array(ids, pa.string()))
    ).to_pylist()
    return rows


def stored_sets(run: Path, judge_id: str) -> pa.Table:
    """What is kept of sets, in the schema SETS; empty where there is nothing."""
    path = run / FOLDER / judge_id / SETS_FILE
    return _read(path, SETS.names) if path.exists() else SETS.empty_table()


def set_id(wanted: pa.Table) -> str:
    """16 hex digits of the pictures of a set."""
    return fingerprint(sorted(wanted.column("picture_id").to_pylist()))


def checked_scores(
    name: str, judge: Judge, pictures: Pictures, asked: pa.Table
) -> dict[str, NDArray[np.float64]]:
    """What a judge says of N pictures, held to what it promises.

    Raises:
        StageError: it raises, or a metric is missing, has no number a picture, or one that it
            cannot have, as infinity or a share above 1.
    """
    columns = said_by(name, judge.score, pictures, asked)
    found: dict[str, NDArray[np.float64]] = {}
    for metric in judge.metrics:
        given = columns[metric] if isinstance(columns, Mapping) and metric in columns else None
        values = tried(lambda given=given: _numbers(given))  # type: ignore[misc]
        if isinstance(values, Exception) or values.shape != (len(pictures),):
            told = said(columns if given is None else given)
            raise StageError(
                f"The judge {name} promises {metric} and gave {told} for {len(pictures)} pictures."
            )
        least, most = metric_of(metric).range
        wrong = values[~np.isnan(values) & ~((values >= least) & (values <= most))]
        if np.isinf(values).any() or wrong.size:
            odd = wrong[0] if wrong.size else values[np.isinf(values)][0]
            raise StageError(
                f"The judge {name} gave {metric} = {odd:g}, which is no value of it (NaN says "
                f"that it does not apply)."
            )
        found[metric] = values
    return found


def _numbers(given: Any) -> NDArray[np.float64]:
    if np.iscomplexobj(given):
        raise ValueError("complex numbers have no order")
    return np.asarray(given, np.float64)


def _score(run: Path, spec: JudgeSpec, judge: Judge, rows: pa.Table) -> None:
    for part in _parts(rows):
        pictures = pictures_of(run, part.column("picture_id").to_pylist())
        begun = time.perf_counter()
        columns = checked_scores(spec.name, judge, pictures, part.select(PROMPTS.names))
        seconds = time.perf_counter() - begun
        table = part.select(["picture_id", "prompt_id"])
        for metric, values in columns.items():
            table = table.append_column(metric, pa.array(values, pa.float64()))
        name = fingerprint(table.select(["picture_id", "prompt_id"]).to_pylist())
        with atomic_path(run / FOLDER / spec.id / f"{name}.parquet") as temporary:
            pq.write_table(table.replace_schema_metadata(took(seconds)), temporary)


def _score_sets(run: Path, spec: JudgeSpec, judge: SetJudge, wanted: pa.Table) -> None:
    sets, path = stored_sets(run, spec.id), run / FOLDER / spec.id / SETS_FILE
    seconds = seconds_in(path)
    if judge.keep is None and studied_id(run):
        judge.keep = run.parent.parent / REFERENCE
    known = set(sets.column("set_id").to_pylist())
    for (form, wording), own in _groups(wanted).items():
        if set_id(own) in known:
            continue
        pictures = pictures_of(run, own.column("picture_id").to_pylist())
        begun = time.perf_counter()
        values = said_by(spec.name, judge.score_set, pictures, own.select(PROMPTS.names))
        seconds += time.perf_counter() - begun
        shared = {"set_id": set_id(own), "form": form, "wording": wording}
        used = judge.used(own.num_rows)
        made = [
            {**shared, "metric": name, "value": value, "floor": floor, "pictures": used}
            for name, (value, floor) in values.items()
        ]
        sets = pa.concat_tables([sets, pa.Table.from_pylist(made, SETS)])
        with atomic_path(path) as temporary:
            pq.write_table(sets.replace_schema_metadata(took(seconds)), temporary)


def said_by(name: str, ask: Any, *given: Any) -> Any:
    """What a judge's method answers.

    Raises:
        StageError: it raises.
    """
    answer = tried(lambda: ask(*given))
    if isinstance(answer, CaplabError):
        raise answer
    if isinstance(answer, Exception):
        raise StageError(f"The judge {name} cannot judge ({said(answer)}).") from answer
    return answer


def _groups(wanted: pa.Table) -> dict[tuple[str, str], pa.Table]:
    forms, wordings = (wanted.column(name).to_pylist() for name in ("form", "wording"))
    rows: dict[tuple[str, str], list[int]] = {}
    for row, key in enumerate(zip(forms, wordings, strict=True)):
        rows.setdefault(key, []).append(row)
    return {key: wanted.take(pa.array(own, pa.int64())) for key, own in rows.items()}


def _parts(rows: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, rows.num_rows, AT_ONCE):
        yield rows.slice(start, AT_ONCE)


def _read(path: Path, needed: Sequence[str]) -> pa.Table:
    return read_kept(path, None, "delete it, and judge again", needed)
