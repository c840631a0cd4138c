"""A study's committed page and tables: docs/results/NAME.md and docs/results/NAME/*.parquet."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.files import read_json
from pipelines.ablation.kept import Kept
from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.results import ALL, Results
from pipelines.ablation.settings import AblateSettings
from pipelines.bench.ablation.own_formats import own_formats
from pipelines.bench.ablation.result_tables import markdown, stored, write_lines
from pipelines.bench.ablation.study_files import question

COMMAND = "python -m pipelines.bench.ablation.results --out runs/results"
OWN_COMMANDS = {"gpu": "OUT=runs/gpu bash pipelines/bench/ablation/gpu.sh"}
BESIDE = "object_hit"
"""Shown beside the primary metric on the primary form: the parser's strict reading."""
LARGEST = 1_000_000
"""Bytes of an images.parquet that is committed whole; of a larger one the prompts' means are."""
COPIED = ("arms", "contrasts", "equivalence", "interactions", "trends", "sets", "blend", "bounds")
VERSIONS = ("caption-lab", "python", "torch", "diffusers", "numpy")


@dataclass(frozen=True)
class Finished:
    """A study that has its tables.

    Attributes:
        record: its run.json.
        tables: results/*.parquet by name.
        prompts: what every run drew, in the schema PROMPTS.
        runs: a row an arm and seed: `runs_table`.
    """

    name: str
    settings: AblateSettings
    record: Mapping[str, Any]
    tables: Mapping[str, pa.Table]
    prompts: pa.Table
    runs: pa.Table

    @staticmethod
    def read(out: Path, name: str) -> Finished:
        """The study OUT/name.

        Raises:
            DatasetError: it is no study.
        """
        study = out / name
        kept = Kept.open(study)
        return Finished(
            name,
            kept.settings,
            read_json(study / "run.json"),
            {path.stem: pq.read_table(path) for path in (study / "results").glob("*.parquet")},
            kept.asked.prompts,
            runs_table(kept),
        )

    @property
    def arms(self) -> list[str]:
        """In the order of the file."""
        return [arm["name"] for arm in self.record["arms"]]


def write_page(
    docs: Path, study: Finished, seconds: float, changed: Mapping[str, float] | None = None
) -> None:
    """Write DOCS/NAME.md and DOCS/NAME/*.parquet of a finished study.

    Args:
        seconds: wall time that it took, runs that other studies had made left out.
        changed: dosed caption set -> share of its words or clauses that was really changed.
    """
    folder = docs / study.name
    for table in COPIED:
        if study.tables[table].num_rows:
            stored(folder / f"{table}.parquet", study.tables[table])
    stored(folder / "runs.parquet", study.runs)
    _store_images(folder, study.tables["images"])
    results = Results(study.tables["images"], study.tables["sets"])
    page = [
        *_head(study, seconds),
        *_tests(study.tables),
        *_really_changed(changed or {}),
        *_by_wording(study),
        *_other_forms(study),
        *(own_formats(results, study.settings) if study.name == "format" else []),
        *_groups(study),
        "",
        "## What it cannot say",
        "",
        *(f"- {limit}" for limit in study.record["limits"]),
    ]
    write_lines(docs / f"{study.name}.md", page)


def write_index(docs: Path, studies: Sequence[Finished], seconds: Mapping[str, float]) -> None:
    """DOCS/README.md: what each study asks, its runs and its time."""
    rows: list[list[str]] = []
    known: set[str] = set()
    for study in studies:
        name, runs = study.name, set(study.runs["run"].to_pylist())
        rows.append(
            [
                f"[{name}]({name}.md)",
                question(name),
                str(len(study.arms)),
                str(len(runs)),
                str(len(runs - known)),
                _minutes(seconds.get(name, 0.0)),
            ]
        )
        known |= runs
    apart = {"data": "the web, curated and captioned", "predict": "scores of all caption sets"}
    rows += [
        [n, told, "", "", "", _minutes(seconds[n])] for n, told in apart.items() if n in seconds
    ]
    total = sum(seconds.get(name, 0.0) for name in (*(study.name for study in studies), *apart))
    head = ["study", "what it asks", "arms", "runs", "of them new", "minutes"]
    page = [
        "# Results",
        "",
        f"`{COMMAND}` makes all of this from nothing on a CPU, goes on where it was killed, and "
        "writes these pages; `--study NAME` makes one, `--small` tries all of it in minutes. "
        "Studies share their runs: an arm that another study trained is not trained again.",
        "",
        *markdown(head, rows),
        "",
        f"{len(known)} runs, {_minutes(total)} minutes of wall time on {hardware()}, what else ran "
        "there included.",
        "",
        "[Which score of captions tells beforehand](predict.md) compares all caption sets; where a "
        "result's [variance](variance.md) comes from has a command of its own.",
        "",
        "NAME/*.parquet are the studies' tables (docs/ablation.md), runs.parquet lists the runs, "
        "bounds.parquet what no model beats and what luck gives.",
    ]
    write_lines(docs / "README.md", page)


def hardware() -> str:
    """This machine in words."""
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    cores = f"{len(psutil.Process().cpu_affinity())} cores of {model}"
    return f"{torch.cuda.get_device_name()}, {cores}" if torch.cuda.is_available() else cores


def runs_table(kept: Kept) -> pa.Table:
    """One row an arm and seed: which run it is, its steps and what training took."""
    rows = []
    for cell in kept.cells:
        summary = read_json(cell.directory / "summary.json")
        rows.append(
            {
                "arm": cell.arm,
                "seed": cell.seed,
                "run": f"{cell.directory.parent.name}/{cell.directory.name}",
                **{
                    n: summary[n]
                    for n in ("steps", "seconds", "cpu_seconds", "loss")
                    if n in summary
                },
            }
        )
    return pa.Table.from_pylist(rows)


def _head(study: Finished, seconds: float) -> list[str]:
    record, name, primary = study.record, study.name, study.settings.primary
    versions = record["versions"]
    runs = set(study.runs["run"].to_pylist())
    command = OWN_COMMANDS.get(name, f"{COMMAND} --study {name}")
    title, *more = re.split(r"(?<=[.?]) ", question(name), maxsplit=1)
    return [
        f"# {title.removesuffix('.')}",
        "",
        *(line for told in more for line in (told, "")),
        *(f"- {sentence}" for sentence in record["headline"]),
        "",
        f"Decided by {primary.metric} on {primary.form} prompts, wording {primary.wording}. "
        f"{len(runs)} runs of {len(study.arms)} arms on {record['images']} pictures, "
        f"{study.prompts.num_rows} prompts with {study.settings.noises} noises each.",
        "",
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}; {hardware()}, "
        f"{record['device']} in {record['precision']}; {_minutes(seconds)} minutes for the runs "
        "that no other study had made; "
        + ", ".join(f"{n} {versions[n]}" for n in VERSIONS if versions.get(n))
        + f". The study: pipelines/bench/ablation/studies/{name}.yaml.",
    ]


def _tests(found: Mapping[str, pa.Table]) -> list[str]:
    """The declared tests, each table's own columns."""
    rows = []
    for row in found["contrasts"].to_pylist():
        if row["declared"]:
            rows.append([f"{row['arm_a']} - {row['arm_b']}", *_tested(row, "difference")])
    for row in found["equivalence"].to_pylist():
        limit = metric_of(row["metric"]).factor * row["margin"]
        what = f"{row['arm']} loses under {limit:g} to {row['than']}, {row['form']} prompts"
        rows.append([f"{what} ({row['wording']})", *_tested(row, "difference")])
    for row in found["interactions"].to_pylist():
        what = f"{row['arm_a']} - {row['arm_b']}, {row['form_a']} against {row['form_b']} prompts"
        rows.append([what, *_tested(row, "difference")])
    for row in found["trends"].to_pylist():
        rows.append([f"{row['sweep']}, for ten points of dose", *_tested(row, "slope")])
    head = ["declared test", "difference", "95%", "p", "p, Holm", "claimed"]
    lines = ["", "## Declared tests", "", *markdown(head, rows)]
    for row in found["trends"].to_pylist():
        known = metric_of(row["metric"])
        doses = zip(row["doses"], row["means"], strict=True)
        told = [[f"{dose:g}", known.shown(mean)] for dose, mean in doses]
        lines += ["", f"Dose of {row['sweep']}, %, and {known.column}:", ""]
        lines += markdown(["dose", known.label], told)
    return lines


def _really_changed(changed: Mapping[str, float]) -> list[str]:
    if not changed:
        return []
    told = ", ".join(f"{name} {100 * share:.1f}%" for name, share in changed.items())
    return ["", f"Words or clauses that were really changed: {told}."]


def _tested(row: Mapping[str, Any], value: str) -> list[str]:
    known = metric_of(row["metric"])
    if row["low"] is None:
        return [known.shown(row[value], True), "-", "-", "-", "no"]
    digits = known.digits_for(row["low"], row["high"])
    shown = [known.shown(row[value], True, digits), known.limits(row["low"], row["high"], True)]
    p_values = ["-" if row[name] is None else f"{row[name]:.2g}" for name in ("p_value", "p_holm")]
    return [*shown, *p_values, "yes" if row["claimed"] else "no"]


def _by_wording(study: Finished) -> list[str]:
    """The primary form: each wording, all together, and the strict reading beside."""
    arms, primary = study.tables["arms"], study.settings.primary
    known, strict = metric_of(primary.metric), metric_of(BESIDE)
    cells = _cells(arms)
    wordings = _wordings(arms, primary.form)
    head = ["arm", *wordings, f"strict ({strict.label})"]
    rows = [
        [
            arm,
            *(cells.get((arm, primary.form, w, ALL, primary.metric), "-") for w in wordings),
            cells.get((arm, primary.form, ALL, ALL, BESIDE), "-"),
        ]
        for arm in study.arms
    ]
    lines = ["", f"## {primary.form.capitalize()} prompts, {known.column}", ""]
    lines += [*markdown(head, rows), ""]
    for row in study.tables["bounds"].to_pylist():
        if row["form"] == primary.form and row["metric"] in (primary.metric, BESIDE):
            told = [
                f"{what} {metric_of(row['metric']).shown(row[n])}"
                for n, what in (
                    ("ceiling", "true pictures reach"),
                    ("soft", "true ones a little blurred and shifted"),
                    ("unrelated", "other pictures of the web"),
                    ("hedging", "pictures full of objects"),
                )
            ]
            lines.append(f"{metric_of(row['metric']).label.capitalize()}: {', '.join(told)}.")
    return lines


def _other_forms(study: Finished) -> list[str]:
    """Every other form, wording by wording, of the primary metric."""
    arms, primary = study.tables["arms"], study.settings.primary
    cells = _cells(arms)
    forms = [f for f in dict.fromkeys(arms["form"].to_pylist()) if f != primary.form]
    places = [(form, w) for form in forms for w in _wordings(arms, form)]
    several = {form for form in forms if len(_wordings(arms, form)) > 1}
    head = ["arm", *(f"{form}, {w}" if form in several else form for form, w in places)]
    rows = [
        [arm, *(cells.get((arm, *place, ALL, primary.metric), "-") for place in places)]
        for arm in study.arms
    ]
    title = f"## Other prompts, {metric_of(primary.metric).column}"
    return ["", title, "", *markdown(head, rows)]


def _groups(study: Finished) -> list[str]:
    """Seen and held-out pairs, and numbers of objects, on the primary prompts."""
    arms, primary = study.tables["arms"], study.settings.primary
    cells = _cells(arms)
    own = [row["group"] for row in arms.to_pylist() if row["form"] == primary.form]
    groups = sorted(set(own) - {ALL}, key=lambda group: (group.startswith("category:"), group))
    if not groups:
        return []
    rows = [
        [
            arm,
            *(cells.get((arm, primary.form, ALL, group, primary.metric), "-") for group in groups),
        ]
        for arm in study.arms
    ]
    names = [group.removeprefix("category:").replace("_", "-") for group in groups]
    title = f"## {primary.form.capitalize()} prompts of all wordings, by what they ask for"
    return ["", title, "", *markdown(["arm", *names], rows)]


def _cells(arms: pa.Table) -> dict[tuple[str, ...], str]:
    """(arm, form, wording, group, metric) -> "73.1 [70.4, 75.1]"."""
    found: dict[tuple[str, ...], str] = {}
    for row in arms.to_pylist():
        known = metric_of(row["metric"])
        text = known.shown(row["mean"])
        if row["low"] is not None:
            digits = known.digits_for(row["low"], row["high"])
            text = (
                f"{known.shown(row['mean'], digits=digits)} {known.limits(row['low'], row['high'])}"
            )
        found[row["arm"], row["form"], row["wording"], row["group"], row["metric"]] = text
    return found


def _wordings(arms: pa.Table, form: str) -> list[str]:
    """Wordings of a form, "all" last; the only one where there is one."""
    own = (
        row["wording"]
        for row in arms.select(["form", "wording"]).to_pylist()
        if row["form"] == form
    )
    named = [wording for wording in dict.fromkeys(own) if wording != ALL]
    return [*named, ALL] if len(named) > 1 else named or [ALL]


def _store_images(folder: Path, images: pa.Table) -> None:
    """images.parquet, or (where it is large) means over noises and seeds as prompts.parquet."""
    path = folder / "images.parquet"
    stored(path, images.drop_columns(["picture_id"]))
    if path.stat().st_size <= LARGEST:
        (folder / "prompts.parquet").unlink(missing_ok=True)
        return
    path.unlink()
    keys = ["arm", "prompt_id", "form", "wording", "intent_id", "category", "held_out", "prompt"]
    metrics = [f.name for f in images.schema if pa.types.is_floating(f.type)]
    # NaN = undefined, which a mean leaves out as it does nulls.
    columns = {
        name: pa.array(images[name].to_numpy(zero_copy_only=False), from_pandas=True)
        for name in metrics
    }
    plain = pa.table({**{name: images[name] for name in keys}, **columns})
    means = plain.group_by(keys, use_threads=False).aggregate([(n, "mean") for n in metrics])
    means = means.rename_columns([n.removesuffix("_mean") for n in means.column_names])
    rounded = [
        pa.array(means[n].to_numpy(zero_copy_only=False), pa.float32(), from_pandas=True)
        for n in metrics
    ]
    table = pa.table({**{n: means[n] for n in keys}, **dict(zip(metrics, rounded, strict=True))})
    stored(folder / "prompts.parquet", table)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}" if seconds < 6000 else f"{seconds / 60:.0f}"
