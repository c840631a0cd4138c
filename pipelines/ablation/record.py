"""study.json: which runs make up a study, what it declares, and when that was declared."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from curate.base.files import fingerprint, read_json, write_json
from curate.base.progress import tell
from curate.base.provenance import provenance
from pipelines.ablation.kept import RECORD
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.study import Study


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
        tell(f"{len(new)} runs are no longer of this study and stay where they are: {_few(new)}")
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
