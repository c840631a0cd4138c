"""From what runs keep to the tables that a study starts from: images, sets, shown and blend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.files import read_json
from pipelines.ablation.judged import JudgeSpec, scores, set_scores
from pipelines.ablation.pictures import encoded, webp_of
from pipelines.ablation.schemas import DESCRIBING, SETS
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import Cell, Study
from pipelines.judges.prompts import PROMPTS

SHOWN_PRIMARY, SHOWN_OTHER = 16, 4
"""Pictures shown of each arm and seed: of the primary form, and of each other form."""
SHOWN = pa.schema(
    [
        ("arm", pa.string()),
        ("seed", pa.int64()),
        ("prompt_id", pa.string()),
        ("noise", pa.int64()),
        ("webp", pa.binary()),
        ("target_webp", pa.binary()),
    ]
)


def collect(study: Study, settings: AblateSettings) -> dict[str, pa.Table]:
    """images, sets, shown and blend, in the columns that pipelines.ablation.schemas tells.

    Raises:
        DatasetError: a run lacks a picture or a score.
    """
    images, sets = [], []
    for cell in study.cells:
        wanted = study.asked.of(cell.run.id, cell.sampling)
        images.append(_images(cell, wanted, study.judges))
        for spec in study.judges:
            for row in set_scores(cell.run.directory, spec, wanted):
                del row["set_id"]
                sets.append({"arm": cell.arm, "seed": cell.seed, **row})
    return {
        "images": pa.concat_tables(images, promote_options="default"),
        "sets": pa.Table.from_pylist(sets, schema=SETS),
        "shown": _shown(study, settings),
        "blend": _blend(study, settings),
    }


def _images(cell: Cell, wanted: pa.Table, judges: list[JudgeSpec]) -> pa.Table:
    arms = pa.array([cell.arm] * wanted.num_rows, pa.string())
    seeds = pa.array([cell.seed] * wanted.num_rows, pa.int64())
    table = wanted.append_column("arm", arms).append_column("seed", seeds)
    table = table.select(DESCRIBING.names).cast(DESCRIBING)
    for spec in judges:
        for metric, values in scores(cell.run.directory, spec, wanted).items():
            table = table.append_column(metric, pa.array(values, pa.float64()))
    return table


def _shown(study: Study, settings: AblateSettings) -> pa.Table:
    """A few pictures of the first noise, with what was meant where a judge can draw it."""
    rows = study.asked.rows
    forms = np.array(rows.column("form").to_pylist())
    first = rows.column("noise").to_numpy() == 0
    chosen: list[int] = []
    for form in dict.fromkeys(forms.tolist()):
        count = SHOWN_PRIMARY if form == settings.primary.form else SHOWN_OTHER
        chosen += np.flatnonzero((forms == form) & first)[:count].tolist()
    side = study.cells[0].run.resolution
    asked = rows.take(pa.array(chosen, pa.int64()))
    targets: list[Any] = [None] * len(chosen)
    for spec in study.judges:
        drawn = spec.made(study.device).targets(asked.select(PROMPTS.names), side)
        if drawn is not None:
            targets = [webp_of(picture) for picture in drawn]
            break
    parts = []
    for cell in study.cells:
        own = study.asked.of(cell.run.id, cell.sampling).take(pa.array(chosen, pa.int64()))
        webp = encoded(cell.run.directory, own.column("picture_id").to_pylist())
        parts.append(
            pa.table(
                {
                    "arm": [cell.arm] * len(chosen),
                    "seed": [cell.seed] * len(chosen),
                    "prompt_id": own.column("prompt_id"),
                    "noise": own.column("noise"),
                    "webp": pa.array(webp, pa.binary()),
                    "target_webp": pa.array(targets, pa.binary()),
                },
                schema=SHOWN,
            )
        )
    return pa.concat_tables(parts)


def _blend(study: Study, settings: AblateSettings) -> pa.Table:
    """The share of each caption kind that a run declared and really saw."""
    rows: list[dict[str, Any]] = []
    for cell in study.cells:
        realised = read_json(cell.run.directory / "summary.json")["blend"]
        for kind, share in settings.all_arms[cell.arm].captions.items():
            rows.append(
                {
                    "arm": cell.arm,
                    "seed": cell.seed,
                    "kind": kind,
                    "share_declared": share,
                    "share_realised": float(realised.get(kind, 0.0)),
                }
            )
    return pa.Table.from_pylist(rows)
