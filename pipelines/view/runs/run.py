"""A training run: its curves, validation by caption kind, sample grids, settings and receipt."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import duckdb
import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from curate.base.errors import DatasetError
from curate.base.files import read_json, read_record
from curate.store.scans import parquet_rows, parquet_scan
from pipelines.ablation.runs import studied_id
from pipelines.report.palette import Palette
from pipelines.report.sections.headline import flat
from pipelines.report.sections.training import PLOTTED, thinned
from pipelines.report.text import words
from pipelines.view.answers import Asked, get
from pipelines.view.opened import Opened
from pipelines.view.runs.tables import marks, rows, run_of

_GRID = re.compile(r"step-(\d+)\.png")
# Column of metrics.parquet -> its title, and whether its axis is logarithmic; others follow.
_CURVES = {"gradient_norm": ("gradient norm, logarithmic", True)}
_CURVES |= {"mfu": ("share of the peak that the machine was measured at", False)}
_NOTHING = ("", "null", "[]", "{}")
_UNPLOTTED = ("step", "seconds", "cpu_seconds")
EMPTY = "empty"
"""Validation without a caption, as train.validation calls it."""


def routes(opened: Opened) -> list[Route]:
    """GET /api/run and /run/grid/STEP; of a study's runs with `arm` and `seed`."""
    if opened.kind == "dataset":
        return []

    def run(asked: Asked) -> dict[str, Any]:
        found = facts(run_of(opened, asked))
        own = {name: asked[name] for name in ("arm", "seed") if asked.text(name)}
        for grid in found["grids"]["steps"]:
            query = urlencode({**own, "made": grid.pop("made")})
            grid["address"] = f"/run/grid/{grid['step']}?{query}"
        return {**found, **own, "of_study": opened.kind == "study"}

    def grid(asked: Asked) -> Response:
        path = grids(run_of(opened, asked)).get(asked.whole("step", 0))
        if path is None:
            raise HTTPException(404)
        # The address says when the file was made.
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(path.read_bytes(), media_type="image/png", headers=headers)

    return [get("/api/run", run), get("/run/grid/{step}", grid)]


def facts(run: Path) -> dict[str, Any]:
    """All that the page tells of a run, finished or not.

    Raises:
        DatasetError: it is not there, or a table cannot be read.
    """
    if not (run / "run.json").exists():
        raise DatasetError(f"The run {run} is not there any more.")
    record = read_record(run / "run.json")
    identity = record.get("identity") or {}
    settings = record.get("settings") or {}
    deciding = identity.get("settings") or settings
    finished = (run / "summary.json").exists()
    summary = read_record(run / "summary.json") if finished else {}
    curves, done = _curves(run)
    validation = _validation(run)
    receipt = _receipt(run, deciding, summary)
    kinds = [*validation, *(row["kind"] for row in receipt["kinds"])]
    return {
        "name": f"{run.parent.name}/{run.name}" if studied_id(run) else run.name,
        "directory": str(run),
        "finished": finished,
        "done": summary.get("steps", done),
        "steps": settings.get("steps", summary.get("steps")),
        "summary": _summary(summary),
        "curves": curves,
        "validation": validation,
        "grids": _grids(run, deciding),
        "settings": _settings(record, deciding),
        "receipt": receipt,
        "marks": marks(Palette(), dict.fromkeys(kind for kind in kinds if kind != EMPTY)),
    }


def _summary(summary: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a finished run says of itself, label and value."""
    told = {
        "samples": "pictures",
        "parameters": "parameters",
        "loss": "last training loss",
        "images_per_second": "images a second",
        "seconds": "seconds",
        "device": "device",
        "precision": "precision",
        "skipped_steps": "steps skipped",
        "dropped_samples": "pictures left out",
    }
    return [(label, summary[name]) for name, label in told.items() if name in summary]


def _curves(run: Path) -> tuple[list[dict[str, Any]], int]:
    """Every number of metrics.parquet over the steps, thinned, and the last step."""
    path = run / "metrics.parquet"
    table = parquet_rows(path) if path.exists() else None
    if table is None or not table.num_rows:
        return [], 0
    columns = {
        name: np.array([np.nan if v is None else v for v in table[name].to_pylist()], float)
        for name in table.column_names
    }
    known = {**PLOTTED, **_CURVES}
    order = [*known, *(name for name in columns if name not in known)]
    found = []
    for name in order:
        values = columns.get(name)
        if values is None or name in _UNPLOTTED or not np.isfinite(values).any():
            continue
        if name not in known and np.ptp(values[np.isfinite(values)]) == 0:
            continue  # a counter that never moved
        title, logarithmic = known.get(name, (words(name), False))
        steps, means = thinned(columns["step"], values)
        line = {"name": name, "steps": steps, "values": means}
        found.append({"title": title, "logarithmic": logarithmic, "lines": [line]})
    return found, int(columns["step"].max())


def _validation(run: Path) -> dict[str, dict[str, list[float]]]:
    """Caption kind -> steps and mean losses over timesteps."""
    path = run / "validation.parquet"
    if not path.exists():
        return {}
    losses: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in parquet_rows(path).to_pylist():
        losses[row["caption_kind"]][row["step"]].append(row["loss"])
    return {
        kind: {
            "steps": [float(step) for step in sorted(by_step)],
            "losses": [float(np.mean(by_step[step])) for step in sorted(by_step)],
        }
        for kind, by_step in losses.items()
    }


def grids(run: Path) -> dict[int, Path]:
    """Step -> sample grid."""
    found = {}
    for path in (run / "grids").glob("step-*.png"):
        if match := _GRID.fullmatch(path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _grids(run: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Steps, the prompts where the run noted or was given them, and the size of a sheet."""
    found = grids(run)
    noted = run / "grids" / "prompts.json"
    prompts = read_json(noted) if noted.exists() else list(settings.get("grid_prompts") or ())
    size = (0, 0)
    if found:
        path = next(iter(found.values()))
        try:
            with Image.open(path) as sheet:
                size = sheet.size
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path} is no picture ({error}).") from error
    steps = [{"step": step, "made": path.stat().st_mtime_ns} for step, path in found.items()]
    return {"steps": steps, "prompts": prompts, "width": size[0], "height": size[1]}


def _settings(record: Mapping[str, Any], deciding: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Titles and flat pairs: what decides the result, the model, how it was run, with what."""
    settings = record.get("settings") or {}
    groups = {
        "What decides the result": deciding,
        "The model": (record.get("identity") or {}).get("model_config") or {},
        "How it was run": {n: v for n, v in settings.items() if n not in deciding},
        "Versions": record.get("versions") or {},
    }
    return [
        {"title": title, "pairs": found}
        for title, group in groups.items()
        if (found := [pair for pair in flat(group) if pair[1] not in _NOTHING])
    ]


def _receipt(run: Path, settings: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """By caption kind: the share declared, what was drawn, emptied, and cut; one scan."""
    path = run / "receipt.parquet"
    drawn = (
        rows(
            duckdb.connect(),
            "SELECT kind, sum(draws)::BIGINT AS draws, "
            "coalesce(sum(draws) FILTER (dropped), 0)::BIGINT AS dropped "
            f"FROM {parquet_scan(path)} GROUP BY kind ORDER BY kind",
        )
        if path.exists()
        else []
    )
    declared = dict(settings.get("captions") or {})
    whole = sum(declared.values()) or 1.0
    cut = summary.get("truncated") or {}
    by_kind = {row["kind"]: row for row in drawn}
    total = sum(row["draws"] for row in drawn)
    kinds = [
        {
            "kind": kind,
            "declared": declared.get(kind, 0.0) / whole,
            "drawn": row["draws"] / total if row and total else None,
            "draws": row["draws"] if row else None,
            "dropped": row["dropped"] if row else None,
            "cut": cut.get(kind),
        }
        for kind in dict.fromkeys([*declared, *by_kind])
        for row in [by_kind.get(kind)]
    ]
    return {
        "there": path.exists(),
        "kinds": kinds,
        "draws": total,
        "dropped": sum(row["dropped"] for row in drawn),
        "dropout": settings.get("prompt_dropout_prob"),
        "unknown_words": summary.get("unknown_words") or {},
    }
