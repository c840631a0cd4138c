"""A study: the answer in words, and its arms by prompt, with the same noise in every arm."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import Route

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint, read_record
from pipelines.report import metrics
from pipelines.report.data import Inputs, find_inputs
from pipelines.report.palette import Palette
from pipelines.report.sections.study import effects
from pipelines.report.study import ALL
from pipelines.report.study import asked as asked_in_words
from pipelines.view.answers import Asked, get
from pipelines.view.opened import Opened
from pipelines.view.pictures import media_type
from pipelines.view.runs.drawn import Drawn
from pipelines.view.runs.prompts import Prompts, Wanted
from pipelines.view.runs.tables import marks

LARGEST_WINDOW = 100
"""Prompts."""
# Another study is served under the same address; so each picture's says which it is of.
_KEEP = {"Cache-Control": "private, max-age=86400, immutable"}


@dataclass(frozen=True)
class Study:
    """A study's tables at one moment. `made` stands in the addresses of its pictures."""

    directory: Path
    made: str
    record: Mapping[str, Any]
    inputs: Inputs
    prompts: Prompts
    drawn: Drawn

    @cached_property
    def arms(self) -> dict[str, dict[int, int]]:
        """Arm -> seed -> the number of its run."""
        found: dict[str, dict[int, int]] = {arm["name"]: {} for arm in self.record.get("arms", [])}
        for number, run in enumerate(self.record.get("runs", [])):
            found.setdefault(run["arm"], {})[int(run["seed"])] = number
        return {arm: dict(sorted(seeds.items())) for arm, seeds in found.items()}

    @cached_property
    def primary(self) -> str:
        """The metric that decides."""
        return str((self.record.get("primary") or {}).get("metric", ""))

    @staticmethod
    def open(directory: Path, made: str) -> Study:
        """
        Raises:
            DatasetError: its results are not there or cannot be read.
        """
        images = directory / "results" / "images.parquet"
        if not images.exists():
            raise DatasetError(f"{directory} has no results yet; `caplab ablate` finishes it.")
        record = read_record(directory / "run.json")
        prompts = Prompts(images, directory / "prompts.parquet")
        drawn = Drawn(directory, record)
        return Study(directory, made, record, find_inputs(None, directory), prompts, drawn)


class _Current:
    """The study as its files are now; opened again when its results were written anew."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._lock = directory, threading.Lock()
        self._study: Study | None = None

    def __call__(self) -> Study:
        files = (self._directory / "run.json", self._directory / "results" / "images.parquet")
        made = fingerprint(
            [[str(path), path.stat().st_mtime_ns if path.exists() else 0] for path in files]
        )
        with self._lock:
            if self._study is None or made != self._study.made:
                self._study = Study.open(self._directory, made)
            return self._study


def routes(opened: Opened) -> list[Route]:
    """GET /api/study, /api/study/prompts, and the pictures below /study/."""
    if opened.kind != "study":
        return []
    study = _Current(opened.directory)

    def kept(asked: Asked) -> Response:
        return _picture(study().drawn.kept(asked.whole("run", 0), asked["picture"]))

    def shown(asked: Asked) -> Response:
        where = asked["arm"], asked.whole("seed", 0), asked["prompt"], asked.whole("noise", 0)
        return _picture(study().drawn.of_results(where))

    def meant(asked: Asked) -> Response:
        now = study()
        return _picture(now.drawn.meant(asked["prompt"], now.prompts.intent(asked["prompt"])))

    return [
        get("/api/study", lambda asked: facts(study())),
        get("/api/study/prompts", lambda asked: prompts(study(), asked)),
        get("/study/kept/{run}/{picture}", kept),
        get("/study/shown/{arm}/{seed}/{prompt}/{noise}", shown),
        get("/study/meant/{prompt}", meant),
    ]


def facts(study: Study) -> dict[str, Any]:
    """What stands above the prompts, and what they are filtered and sorted by."""
    found = effects.compute(study.inputs)
    record, arms = study.record, study.arms
    blends = dict(found.blends) if found is not None else {}
    primary = record.get("primary") or {}
    return {
        "name": study.directory.name,
        "headline": record.get("headline", []),
        "exploratory": len(record.get("seeds", [])) == 1,
        "answers": {
            heading: [{"sentence": test.sentence, "claimed": test.claimed} for test in tests]
            for heading, tests in (found.answers.items() if found is not None else ())
        },
        "limits": record.get("limits", []),
        "decided": _metric(study.primary),
        "decided_on": asked_in_words(primary.get("form", ""), primary.get("wording", ALL)),
        "primary": primary,
        "arms": [
            {
                "name": arm,
                "learnt": blends.get(arm, ""),
                "seeds": list(seeds),
                "there": [
                    study.directory.joinpath(record["runs"][n]["run"]).is_dir()
                    for n in seeds.values()
                ],
                **_mean(found, arm),
            }
            for arm, seeds in arms.items()
        ],
        "pairs": [list(pair) for pair in found.study.pairs()] if found is not None else [],
        "metrics": [_metric(name) for name in study.prompts.metrics],
        "marks": marks(Palette(arms), arms),
        **study.prompts.facts(),
    }


def _metric(name: str) -> dict[str, Any]:
    known = metrics.metric(name)
    return {
        "name": name,
        "label": known.label,
        "meaning": known.meaning,
        "less_is_better": known.less_is_better,
        "factor": known.factor,
        "unit": "%" if known.unit == "share" else "",
        "suffix": known.suffix,
        "digits": known.digits,
    }


def _mean(found: effects.Effects | None, arm: str) -> dict[str, str]:
    """An arm's mean on what decides, with its interval, as text."""
    if found is None:
        return {"mean": "", "interval": ""}
    own = found.study
    row = own.cells.get((arm, own.form, own.wording, ALL, own.metric))
    if row is None:
        return {"mean": "", "interval": ""}
    low, high = metrics.limits(row)
    return {
        "mean": metrics.value(own.metric, row["mean"], low=low, high=high),
        "interval": metrics.interval(own.metric, low, high),
    }


def prompts(study: Study, asked: Asked) -> dict[str, Any]:
    """A window of prompts: one cell an arm, all of the same noise."""
    arms = study.arms
    shown = [arm for arm in asked.request.query_params.getlist("arm") if arm in arms] or list(arms)
    by = study.prompts.metric(asked.text("metric", study.primary))
    a, b = asked.text("a"), asked.text("b")
    sort = asked.one_of("sort", "", "difference")
    if sort and not (a in arms and b in arms):
        raise ConfigError("A difference is of two arms of this study.")
    wanted = Wanted(
        form=asked.text("form"),
        wording=asked.text("wording"),
        category=asked.text("category"),
        held_out=asked.one_of("held_out", "", "1", "0"),
        text=asked.text("text"),
    )
    if sort:
        wanted = replace(wanted, sort=sort, by=by, a=a, b=b, down=not asked.flag("up"))
    start, count = asked.whole("start", 0), asked.whole("count", 20, 1, LARGEST_WINDOW)
    order = study.prompts.order(wanted)
    ids = order[start : start + count]
    noise, seed = asked.whole("noise", 0), asked.whole("seed", 0)
    seeds = {arm: list(arms[arm])[seed] for arm in shown if seed < len(arms[arm])}
    scores = study.prompts.scores(ids, noise, list(seeds.items()))
    means = study.prompts.means(ids, by)
    return {
        "total": len(order),
        "rows": [
            {
                **{name: row[name] for name in ("form", "wording", "category", "held_out")},
                "prompt_id": row["prompt_id"],
                "prompt": row["prompt"],
                "questions": row["questions"] or [],
                "intent": row["intent"],
                "meant": _address(study, "meant", row["prompt_id"])
                if study.drawn.knows_meant(row["prompt_id"], row["intent"])
                else None,
                "difference": _minus(
                    means.get((row["prompt_id"], a)), means.get((row["prompt_id"], b))
                ),
                "cells": [
                    {
                        "arm": arm,
                        "seed": seeds.get(arm),
                        "mean": means.get((row["prompt_id"], arm)),
                        **_cell(
                            study,
                            arm,
                            seeds.get(arm),
                            row["prompt_id"],
                            noise,
                            scores.get((row["prompt_id"], arm)),
                        ),
                    }
                    for arm in shown
                ],
            }
            for row in study.prompts.window(ids)
        ],
    }


def _cell(
    study: Study,
    arm: str,
    seed: int | None,
    prompt: str,
    noise: int,
    row: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The address of a picture, or why there is none, and its scores."""
    if seed is None:
        count = len(study.arms[arm])
        return {"picture": None, "why": f"this arm has {count} seed{'s' * (count != 1)}"}
    if row is None:
        return {"picture": None, "why": "never asked of this arm"}
    scores = {name: row[name] for name in study.prompts.metrics}
    run = study.arms[arm][seed]
    if study.drawn.has(run, row["picture_id"]):
        return {"picture": _address(study, "kept", run, row["picture_id"]), "scores": scores}
    if (arm, seed, prompt, noise) in study.drawn.shown:
        address = _address(study, "shown", arm, seed, prompt, noise)
        return {"picture": address, "scores": scores}
    return {"picture": None, "why": "its run kept no picture", "scores": scores}


def _address(study: Study, *parts: str | int) -> str:
    path = "/".join(quote(str(part), safe="") for part in parts)
    return f"/study/{path}?made={study.made}"


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _picture(content: bytes) -> Response:
    return Response(content, media_type=media_type(content), headers=_KEEP)
