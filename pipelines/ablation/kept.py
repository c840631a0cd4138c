"""What a study keeps: arms and seeds with their pictures and scores, as study.json lists them.

It needs no dataset and no model, so that kept pictures may be judged, and tables be made, anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, fingerprint, read_json, read_record, write_json
from curate.base.progress import tell
from curate.base.provenance import provenance
from curate.base.settings import load_settings
from curate.base.telling.words import amount
from pipelines.ablation.judged import JudgeSpec, refuse_shared_metrics, said_by, scores, set_scores
from pipelines.ablation.pictures import Asked, decoded, encoded, read_kept, webp_of
from pipelines.ablation.runs import RECORD
from pipelines.ablation.schemas import DESCRIBING, SETS
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import Study
from pipelines.judges.prompts import PROMPTS
from pipelines.judges.protocol import Judge

PROMPTS_FILE = "prompts.parquet"
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


@dataclass(frozen=True)
class KeptCell:
    """One arm and seed: where its pictures are, and how they were drawn."""

    arm: str
    seed: int
    directory: Path
    run_id: str
    sampling: Mapping[str, Any]

    def wanted(self, asked: Asked) -> pa.Table:
        """Its pictures: a row each, see `Asked.of`."""
        return asked.of(self.run_id, self.sampling)


@dataclass(frozen=True)
class Kept:
    """A study as it lies on disk.

    Attributes:
        record: study.json.
    """

    out: Path
    record: Mapping[str, Any]
    settings: AblateSettings
    cells: list[KeptCell]
    asked: Asked
    judges: list[JudgeSpec]

    @property
    def device(self) -> str:
        """Where its models were trained and judges judge."""
        return str(self.record["device"])

    @staticmethod
    def open(out: Path) -> Kept:
        """
        Raises:
            DatasetError: there is no study in `out`, or its prompts are gone.
        """
        if not (out / RECORD).exists() or not (out / PROMPTS_FILE).exists():
            raise DatasetError(
                f"{out} is not a study; `caplab ablate DATASET --out {out}` makes one."
            )
        record = read_record(out / RECORD)
        settings = load_settings(AblateSettings, None, record["settings"])
        cells = [
            KeptCell(row["arm"], row["seed"], out / row["run"], row["run_id"], row["sampling"])
            for row in record["runs"]
        ]
        prompts = read_kept(
            out / PROMPTS_FILE, None, "`caplab ablate` with the study's file writes it anew"
        )
        asked = Asked(prompts, settings.noises, settings.generation_seed)
        judges = [
            JudgeSpec(**{**row, "metrics": tuple(row["metrics"]), "limits": tuple(row["limits"])})
            for row in record["judges"]
        ]
        return Kept(out, record, settings, cells, asked, judges)

    def with_judge(self, spec: JudgeSpec) -> Kept:
        """The study with one more judge, as it is recorded from now on; one of its name goes.

        Raises:
            ConfigError: another judge gives one of its metrics.
        """
        others = [own for own in self.judges if own.name != spec.name]
        refuse_shared_metrics([*others, spec])
        judges = [*others, spec]
        added = [*(n for n in self.record.get("judges_added", []) if n != spec.name), spec.name]
        told = [own.told() for own in judges]
        record = {**self.record, "judges": told, "judges_added": added}
        write_json(self.out / RECORD, record)
        return Kept(self.out, record, self.settings, self.cells, self.asked, judges)


def write_prompts(out: Path, asked: Asked) -> None:
    """Keep what every run of a study is asked to draw."""
    with atomic_path(out / PROMPTS_FILE) as temporary:
        pq.write_table(asked.prompts, temporary)


def record_study(out: Path, settings: AblateSettings, study: Study) -> None:
    """Bring study.json up to date, and tell which runs are no longer of the study.

    A test that is declared once results are there is told among the limits: who has seen the
    answer cannot declare it beforehand.
    """
    stored = read_json(out / RECORD)
    runs = [
        {
            "arm": cell.arm,
            "seed": cell.seed,
            "run": str(_place(out, cell.run.directory)),
            "run_id": cell.run.id,
            "sampling": dict(cell.sampling),
        }
        for cell in study.cells
    ]
    now = {str(run["run"]) for run in runs}
    before_now = {run["run"] for run in stored.get("runs", [])}
    left = sorted(set(stored.get("left", [])) | before_now)
    left = [run for run in left if run not in now]
    if new := sorted(set(left) - set(stored.get("left", []))):
        tell(f"{amount(len(new), 'run')} no longer of this study, left in place: {_few(new)}")
    declared = _declared(settings)
    before = stored.get("declared")
    seen = (out / "results" / "contrasts.parquet").exists()
    late = list(stored.get("late", []))
    if before is not None and seen:
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        late += [
            f"Declared on {when}, when results were there already: {name}."
            for name in declared
            if name not in before
        ]
    write_json(
        out / RECORD,
        {
            **stored,
            **provenance(settings),
            "created_at": stored["created_at"],
            "device": study.device,
            "precision": study.precision,
            "dataset_directory": str(study.dataset.directory),
            "arms": [{"name": name, **arm.resolved()} for name, arm in settings.all_arms.items()],
            "seeds": list(settings.seeds),
            "judges": [spec.told() for spec in study.judges],
            "judges_added": [n for n in stored.get("judges_added", []) if n not in settings.judges],
            "cut": [vars(own) for own in study.cut],
            "images": len(study.cells[0].run.keys),
            "asked": {
                "prompts": fingerprint(study.asked.prompts.to_pylist()),
                "noises": study.asked.noises,
                "generation_seed": study.asked.generation_seed,
            },
            "runs": runs,
            "left": left,
            "declared": declared,
            "late": late,
        },
    )


def _declared(settings: AblateSettings) -> list[str]:
    """Every declared test, in words that stay the same."""
    own = settings.declaration()
    primary = f"on {own.primary.form} prompts, {own.primary.wording} wordings, {own.primary.metric}"
    tests = [f"{a} against {b} {primary}" for a, b in own.contrasts]
    tests += [
        f"{c.arm} no worse than {c.than} by {c.margin:g} on {c.form} prompts ({c.wording}, "
        f"{c.metric or own.primary.metric})"
        for c in own.no_worse
    ]
    tests += [
        f"interaction of {' and '.join(c.arms)} with {' and '.join(c.forms)} prompts "
        f"({c.wording or own.primary.wording}, {c.metric or own.primary.metric})"
        for c in own.interactions
    ]
    tests += [
        f"trend {name} over {', '.join(doses)} {primary}" for name, doses in own.trends.items()
    ]
    return tests


def _place(out: Path, run: Path) -> Path:
    """Below `out` as it is seen from there, so that a study may be moved."""
    return run.relative_to(out) if run.is_relative_to(out) else run


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


# ---- the tables that all others are computed from ----------------------------------------------


def collect(kept: Kept) -> dict[str, pa.Table]:
    """images, sets, shown and blend, in the columns that pipelines.ablation.schemas tells.

    And bounds, of the first judge that knows between what its scores lie.

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
    side = _side(kept)
    judges = [spec.made(kept.device) for spec in kept.judges]
    bounds = [
        said_by(spec.name, judge.bounds, kept.asked.prompts, side)
        for spec, judge in zip(kept.judges, judges, strict=True)
    ]
    tables = {
        "images": pa.concat_tables(images, promote_options="default"),
        "sets": pa.Table.from_pylist(sets, schema=SETS),
        "shown": _shown(kept, judges, side),
        "blend": _blend(kept),
    }
    known = next((table for table in bounds if table is not None), None)
    return tables if known is None else {**tables, "bounds": known}


def _side(kept: Kept) -> int:
    """Pixels a side of the pictures."""
    first = kept.cells[0]
    drawn = encoded(first.directory, first.wanted(kept.asked)["picture_id"][:1].to_pylist())
    return int(decoded(drawn[0]).shape[0])


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


def _shown(kept: Kept, judges: Sequence[Judge], side: int) -> pa.Table:
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
    asked = rows.take(place)
    targets: list[Any] = [None] * len(chosen)
    for judge in judges:
        name = type(judge).__name__
        meant = said_by(name, judge.targets, asked.select(PROMPTS.names), side)
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
