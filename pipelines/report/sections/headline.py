"""The answer first: one or two sentences with intervals, the numbers that matter, what was run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curate.base.files import read_json
from pipelines.report import metrics, text
from pipelines.report.data import Inputs
from pipelines.report.page import Page, Section
from pipelines.report.study import ALL, asked, study

NAMED = 8  # selections in a sentence, arms in a row of tiles


@dataclass(frozen=True)
class Tile:
    """A number worth a large font, what it counts, and a remark below it."""

    value: str
    label: str
    remark: str = ""
    arm: str = ""


@dataclass(frozen=True)
class Record:
    """What made one of the outputs, as flat name-value pairs."""

    title: str
    settings: list[tuple[str, str]]
    versions: list[tuple[str, str]]
    weights: list[tuple[str, str]]


@dataclass(frozen=True)
class Headline:
    """The facts of this section."""

    title: str
    sentences: list[str]
    exploratory: bool  # one training seed claims nothing
    tiles: list[Tile]
    tiles_about: str
    records: list[Record]


def compute(inputs: Inputs) -> Headline:
    """Never None: every report has a head."""
    record = inputs.run_record
    sentences = [str(line) for line in record.get("headline", [])]
    if inputs.demo is not None and (inputs.demo / "answer.json").exists():
        sentences.append(read_json(inputs.demo / "answer.json")["answer"])
    arm_tiles, about = _arm_tiles(inputs)
    tiles = arm_tiles
    if inputs.dataset is not None:
        counts, sentence = _dataset_counts(inputs)
        tiles = [*arm_tiles, *counts]
        if not sentences:
            sentences = [sentence]
    elif inputs.train_runs and not sentences:
        sentences, tiles = _single_run(inputs)
    records = []
    if inputs.dataset is not None:
        records.append(_record("Dataset", inputs.dataset.record()))
    if record:
        records.append(_record("Ablation", record))
    elif inputs.train_runs:
        run = read_json(inputs.train_runs[0].directory / "run.json")
        records.append(_record("Training run", run))
    exploratory = inputs.ablation is not None and len(record.get("seeds", [])) == 1
    title = "The answer" if inputs.ablation is not None else "At a glance"
    return Headline(title, sentences, exploratory, tiles, about, records)


def draw(facts: Headline, page: Page) -> Section:
    return page.section("headline", facts.title, facts=facts)


def _arm_tiles(inputs: Inputs) -> tuple[list[Tile], str]:
    found = study(inputs)
    if found is None:
        return [], ""
    tiles = []
    for arm in found.arms[:NAMED]:
        row = found.cells.get((arm, found.form, found.wording, ALL, found.metric))
        if row is not None:
            low, high = metrics.limits(row)
            mean = metrics.value(found.metric, row["mean"], low=low, high=high)
            tiles.append(Tile(mean, arm, metrics.interval(found.metric, low, high), arm))
    known = metrics.metric(found.metric)
    meaning = f" ({known.meaning})" if known.meaning else ""
    return tiles, f"{known.label}{meaning}; {asked(found.form, found.wording)}; 95% interval"


def _single_run(inputs: Inputs) -> tuple[list[str], list[Tile]]:
    path = inputs.train_runs[0].directory / "summary.json"
    if not path.exists():
        return ["The run is not finished."], []
    summary = read_json(path)
    steps = text.counted(summary["steps"], "step")
    samples = text.counted(summary["samples"], "picture")
    tiles = [
        Tile(*steps.split(" ")),
        Tile(*samples.split(" ")),
        Tile(text.number(summary["loss"]), "last training loss"),
        Tile(text.number(summary["images_per_second"]), "images a second", summary["device"]),
    ]
    return [f"Trained {steps} on {samples}."], tiles


def _dataset_counts(inputs: Inputs) -> tuple[list[Tile], str]:
    counted = inputs.rows(
        "SELECT count(*) AS n, count(*) FILTER (status = 'stored') AS s FROM samples"
    )
    total, stored = counted[0]["n"], counted[0]["s"]
    if not total:
        return [Tile("0", "rows in")], "The dataset is empty so far."
    share = text.percent(stored / total)
    rows_in = "rows in" if total != 1 else "row in"
    tiles = [Tile(text.integer(total), rows_in), Tile(text.integer(stored), "stored", share)]
    were = "was" if stored == 1 else "were"
    failed = text.integer(total - stored) if total > stored else "none"
    sentence = (
        f"Of {text.counted(total, 'input row')}, {text.integer(stored)} {were} stored and "
        f"{failed} failed{', each with a reason' if total > stored + 1 else ''}."
    )
    if inputs.selection is not None and inputs.dataset is not None:
        selected = inputs.selection_size
        remark = f"{text.percent(selected / stored)} of stored" if stored else ""
        tiles.append(Tile(text.integer(selected), "selected", remark))
        sentence += f" The selection “{inputs.selection}” keeps {text.integer(selected)}."
        names = inputs.dataset.selections()
        if len(names) > 1:
            listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
            sentence += f" It is followed here, of {len(names)} selections: {listed}."
    written = inputs.rows(
        "SELECT count(*) FILTER (status = 'ok') AS ok, count(*) AS n "
        "FROM captions WHERE engine <> 'none' OR engine IS NULL"
    )[0]
    if written["n"]:
        remark = f"{text.percent(written['ok'] / written['n'])} of those written"
        label = "caption accepted" if written["ok"] == 1 else "captions accepted"
        tiles.append(Tile(text.integer(written["ok"]), label, remark))
    return tiles, sentence


def _record(title: str, record: Mapping[str, Any]) -> Record:
    settings = record.get("settings") or record.get("identity") or {}
    versions = {name: v for name, v in dict(record.get("versions") or {}).items() if v is not None}
    if "created_at" in record:
        versions = {"made at": record["created_at"], **versions}
    return Record(title, flat(settings), flat(versions), flat(record.get("weights") or {}))


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names with their values as text."""
    pairs: list[tuple[str, str]] = []
    for name, inner in value.items():
        path = f"{prefix}{name}"
        if isinstance(inner, Mapping) and inner:
            pairs += flat(inner, f"{path}.")
        elif isinstance(inner, str):
            pairs.append((path, inner))
        else:
            pairs.append((path, json.dumps(inner, ensure_ascii=False, default=str)))
    return pairs
