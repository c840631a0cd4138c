"""From what runs keep to the tables that a study starts from: images, sets, shown and blend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base.files import read_json
from pipelines.ablation.judged import JudgeSpec, scores, set_scores
from pipelines.ablation.kept import Kept, KeptCell
from pipelines.ablation.pictures import decoded, encoded, webp_of
from pipelines.ablation.schemas import DESCRIBING, SETS
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


def collect(kept: Kept) -> dict[str, pa.Table]:
    """images, sets, shown and blend, in the columns that pipelines.ablation.schemas tells.

    Raises:
        DatasetError: a run lacks a picture or a score.
    """
    images, sets = [], []
    for cell in kept.cells:
        wanted = cell.wanted(kept.asked)
        images.append(images_of(cell, wanted, kept.judges))
        for spec in kept.judges:
            for row in set_scores(cell.directory, spec, wanted):
                del row["set_id"]
                sets.append({"arm": cell.arm, "seed": cell.seed, **row})
    return {
        "images": pa.concat_tables(images, promote_options="default"),
        "sets": pa.Table.from_pylist(sets, schema=SETS),
        "shown": _shown(kept),
        "blend": _blend(kept),
    }


def images_of(cell: KeptCell, wanted: pa.Table, judges: Sequence[JudgeSpec]) -> pa.Table:
    """Rows of images.parquet of one arm and seed."""
    arms = pa.array([cell.arm] * wanted.num_rows, pa.string())
    seeds = pa.array([cell.seed] * wanted.num_rows, pa.int64())
    table = wanted.append_column("arm", arms).append_column("seed", seeds)
    table = table.select(DESCRIBING.names).cast(DESCRIBING)
    for spec in judges:
        for metric, values in scores(cell.directory, spec, wanted).items():
            table = table.append_column(metric, pa.array(values, pa.float64()))
    return table


def _shown(kept: Kept) -> pa.Table:
    """A few pictures of the first noise, with what was meant where a judge can draw it."""
    rows = kept.asked.rows
    forms = np.array(rows.column("form").to_pylist())
    first = rows.column("noise").to_numpy() == 0
    chosen: list[int] = []
    for form in dict.fromkeys(forms.tolist()):
        count = SHOWN_PRIMARY if form == kept.settings.primary.form else SHOWN_OTHER
        chosen += np.flatnonzero((forms == form) & first)[:count].tolist()
    place = pa.array(chosen, pa.int64())
    drawn = [
        encoded(cell.directory, cell.wanted(kept.asked).take(place)["picture_id"].to_pylist())
        for cell in kept.cells
    ]
    side = decoded(drawn[0][0]).shape[0]
    asked = rows.take(place)
    targets: list[Any] = [None] * len(chosen)
    for spec in kept.judges:
        meant = spec.made(kept.device).targets(asked.select(PROMPTS.names), side)
        if meant is not None:
            targets = [webp_of(picture) for picture in meant]
            break
    parts = []
    for cell, webp in zip(kept.cells, drawn, strict=True):
        parts.append(
            pa.table(
                {
                    "arm": [cell.arm] * len(chosen),
                    "seed": [cell.seed] * len(chosen),
                    "prompt_id": asked.column("prompt_id"),
                    "noise": asked.column("noise"),
                    "webp": pa.array(webp, pa.binary()),
                    "target_webp": pa.array(targets, pa.binary()),
                },
                schema=SHOWN,
            )
        )
    return pa.concat_tables(parts)


def _blend(kept: Kept) -> pa.Table:
    """The share of each caption kind that a run declared and really saw."""
    rows: list[dict[str, Any]] = []
    arms = kept.settings.all_arms
    for cell in kept.cells:
        realised = read_json(cell.directory / "summary.json")["blend"]
        for kind, share in arms[cell.arm].captions.items():
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
