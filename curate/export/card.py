"""The dataset card: README.md with the front matter of Hugging Face, funnel, scores, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq
import yaml

from curate.base.telling.words import amount
from curate.export.layouts import Layout
from curate.export.plan import Plan
from curate.export.settings import ExportSettings
from curate.store.accounting import accounting
from curate.store.dataset import Dataset
from curate.store.finite import finite_columns
from curate.store.scans import parquet_scan, sql_name

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
_LICENCE = (
    "license: other\nlicense_name: fill-in  # FILL IN: you decide, Caption Lab cannot\n"
    "license_link: LICENSE\n"
)


def dataset_card(dataset: Dataset, settings: ExportSettings, plan: Plan, layout: Layout) -> str:
    """The text of README.md. Statistics are of the exported samples, computed by DuckDB."""
    record = dataset.selection_record(settings.selection)
    title = settings.title or layout.out.name
    front: dict[str, Any] = {
        "pretty_name": title,
        "task_categories": ["text-to-image", "image-to-text"],
        "size_categories": [size_category(plan.samples)],
        "tags": ["image-text", "caption-lab"],
    }
    if settings.layout == "huggingface":
        files = {"split": "train", "path": layout.pattern}
        front["configs"] = [{"config_name": "default", "data_files": [files]}]
        features = layout.features(pq.read_schema(plan.files[0]), _extensions(plan))
        if features is not None:
            front["dataset_info"] = {"features": features}
            if settings.format == "folder":
                # Its reader guesses from the first rows unless its own configuration says them.
                front["configs"][0]["features"] = features
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in plan.kinds.items())
    left_out = _table(("reason", "samples"), list(plan.left_out.items()))
    parts = [
        f"---\n{_LICENCE}{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {title}",
        f"{amount(plan.samples, 'picture')} with one caption each ({kinds}) in "
        f"{amount(plan.shards, 'shard')}, "
        f"exported by Caption Lab from the selection `{settings.selection}`.",
        "## Licence",
        "**Fill in.** The pictures and texts belong to those who made them; this export grants no "
        "rights to them. State the licence under which you share the captions and the selection, "
        "in the front matter above and here, and how a person can have a picture removed.",
        "## Use",
        f"```\n{layout.read_as()}\n```",
        "## Where the samples come from",
        _funnel(dataset, record),
        "Selected, and left out of this export:" if plan.left_out else "None was left out.",
        left_out if plan.left_out else "",
        "## Selection",
        f"```sql\n{record.get('where', 'true')}\n```",
        _preset(record),
        _balance(record),
        "## Captions",
        _captions(dataset, settings, plan),
        "## Scores of the exported samples",
        _scores(dataset, plan),
        "## Order and draws",
        f"Order: {settings.order}, seed {settings.seed}. Which sample takes which caption kind is "
        "drawn from a hash of seed and key; the same seed gives the same export.",
        "## Made with",
        _provenance(dataset),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _extensions(plan: Plan) -> list[str]:
    import duckdb

    query = f"SELECT DISTINCT extension FROM {parquet_scan(plan.files)} ORDER BY 1"
    with duckdb.connect() as connection:
        return [extension for (extension,) in connection.execute(query).fetchall()]


def size_category(samples: int) -> str:
    """Hugging Face's word for a number of samples."""
    return next((name for limit, name in _SIZES if samples < limit), "n>1B")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)


def _funnel(dataset: Dataset, record: Mapping[str, Any]) -> str:
    counts = accounting(dataset)
    rows: list[tuple[str, int, int]] = [("rows of the input", 0, counts["rows"])]
    left = counts["rows"]
    for reason, lost in counts["reasons"].items():
        left -= lost
        rows.append((f"not stored: {reason}", lost, left))
    if counts["pending"]:
        left -= counts["pending"]
        rows.append(("not fetched yet", counts["pending"], left))
    for rule in record.get("funnel", []):
        removed = rule["removed_in_order"] + rule["unscored_in_order"]
        rows.append((f"`{rule['rule']}`", removed, rule["left"]))
    return _table(("step", "removed", "left"), rows)


def _preset(record: Mapping[str, Any]) -> str:
    preset = record.get("preset")
    if not isinstance(preset, Mapping):
        return ""
    shown = {name: value for name, value in preset.items() if isinstance(value, str | int | float)}
    return "Preset: " + ", ".join(f"{name} {value}" for name, value in shown.items())


def _balance(record: Mapping[str, Any]) -> str:
    balance = record.get("balance")
    if not isinstance(balance, Mapping):
        return ""
    return (
        f"Balanced by `{balance['expression']}`: the rows' `weight` (a mean of 1 over the "
        f"selection) gives its {balance['groups']:,} groups equal total weight. A reader honours "
        "it by drawing samples, or weighting their losses, in proportion."
    )


def _captions(dataset: Dataset, settings: ExportSettings, plan: Plan) -> str:
    """Who wrote the exported captions, and how long they are."""
    with dataset.connect(["captions"]) as connection:
        connection.execute("SET threads = 1")  # or sums and quantiles vary in their last digits
        connection.execute(
            f"CREATE VIEW exported AS SELECT kind, source, caption FROM {parquet_scan(plan.files)}"
        )
        lengths = connection.execute(
            "SELECT kind, source, count(*), round(avg(len(string_split_regex(trim(caption), "
            "'\\s+'))), 1) FROM exported GROUP BY kind, source ORDER BY kind"
        ).fetchall()
        rows = []
        for kind, source, count, words in lengths:
            made = connection.execute(
                "SELECT DISTINCT engine, model, model_revision, prompt_id FROM "
                f"{dataset.scan('captions', source)} "
                "WHERE kind = $kind AND status = 'ok' LIMIT 5",
                {"kind": kind},
            ).fetchall()
            by = "; ".join(sorted({_model(*row) for row in made}))
            share = f"{settings.captions.get(kind, 0):.1%}"
            rows.append((kind, share, count, words, by))
    return _table(("kind", "share asked", "samples", "words on average", "written by"), rows)


def _model(engine: str | None, model: str | None, revision: str | None, prompt: str | None) -> str:
    if not model:
        return "came with the picture"
    at = f"@{revision[:12]}" if revision else ""
    return f"{model}{at} ({engine}, prompt {prompt})" if prompt else f"{model}{at} ({engine})"


def _scores(dataset: Dataset, plan: Plan) -> str:
    """Quantiles of every numeric score of the exported samples."""
    if not dataset.has_table("scores"):
        return "None were computed."
    numeric = ("DOUBLE", "FLOAT", "INTEGER", "BIGINT", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER")
    with dataset.connect(["scores"]) as connection:
        connection.execute("SET threads = 1")  # or sums and quantiles vary in their last digits
        described = connection.execute("DESCRIBE scores").fetchall()
        names = [name for name, kind, *_ in described if kind in numeric]
        if not names:
            return "None are numbers."
        parts = ", ".join(
            f"count({n}), avg({n}), "
            + ", ".join(f"approx_quantile({n}, {q})" for q in (0.05, 0.5, 0.95))
            for n in map(sql_name, names)
        )
        row = connection.execute(
            f"SELECT {parts} FROM (SELECT {finite_columns(connection, 'scores')} FROM scores) "
            f"SEMI JOIN {parquet_scan(plan.files)} AS exported USING (key)"
        ).fetchall()[0]
    lines = []
    for index, name in enumerate(names):
        count, *values = row[5 * index : 5 * index + 5]
        shown = ["" if value is None else f"{value:.4g}" for value in values]
        lines.append((f"`{name}`", int(count), *shown))
    return _table(("score", "samples", "mean", "5%", "median", "95%"), lines)


def _provenance(dataset: Dataset) -> str:
    record = dataset.record()
    weights = [
        (f"`{name}`", f"`{digest[:16]}`") for name, digest in record.get("weights", {}).items()
    ]
    versions = ", ".join(f"{n} {v}" for n, v in record.get("versions", {}).items() if v)
    lines = [f"Versions: {versions}."] if versions else []
    if weights:
        lines.append(_table(("weights", "sha256"), weights))
    return "\n\n".join(lines) or "No record."
