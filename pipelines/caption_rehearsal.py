"""`caplab recaption --dry-run N`: caption N pictures, store nothing, and say what is ahead."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from pipelines.caption_actors import plan_captions
from pipelines.settings import RecaptionCommandSettings
from recaption.captioning.missing import WorkRows
from recaption.captioning.stage import CaptionStage, row_counts

_MILLION = 1e6
EXAMPLES = 4


def rehearse(
    dataset: Dataset, stage: CaptionStage, settings: RecaptionCommandSettings, pictures: int
) -> str:
    """Caption `pictures` pictures, evenly spread over those that lack captions.

    Returns:
        Rate, tokens, accepted share and reasons; captions, hours and money that are left. The time
        to load the captioner stands apart.

    Raises:
        ConfigError: nothing is left to be captioned, or the captioner does not open.
    """
    plan = plan_captions(stage, dataset, settings.workers)
    left = sum(plan.missing.values())
    if not left:
        raise ConfigError(
            f"All {plan.wanted:,} captions are written already."
            if plan.wanted
            else f"Selection {settings.selection!r} has no stored pictures."
        )
    work = _sampled(dataset, stage, plan.missing, pictures)
    started = time.perf_counter()
    stage.open()
    opened = time.perf_counter()
    rows = stage.caption(work)
    seconds = time.perf_counter() - opened
    captions = rows.num_rows
    counts = row_counts(rows)
    reasons = [f"{name} {count}" for name, count in counts.items() if ":" in name]
    sides = [side for side in _larger_sides(rows) if side is not None]
    read, wrote = (_mean(rows, name) for name in ("prompt_tokens", "output_tokens"))
    hours = left * seconds / captions / settings.workers / 3600
    workers = f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"
    lines = [
        f"{captions} captions of {work.num_rows} pictures in {seconds:.1f} s, after "
        f"{opened - started:.1f} s to open the captioner",
        f"a worker: {captions / seconds:.2f} captions and {work.num_rows / seconds:.2f} pictures a "
        f"second, at {np.median(sides) if sides else 0:.0f} px (longest side as sent, median), "
        f"{_told(read)} tokens read and {_told(wrote)} written a caption, "
        f"{counts['ok'] / captions:.0%} accepted",
        *([f"not accepted: {', '.join(reasons)}"] if reasons else []),
        f"left: {left:,} of {plan.wanted:,} captions, about {hours:.2f} hours with {workers}",
    ]
    if settings.price_per_hour:
        cost = hours * settings.workers * settings.price_per_hour
        lines.append(f"at {settings.price_per_hour:g} an hour and worker: about {cost:.2f}")
    lines += _token_cost(settings, rows, left)
    return "\n".join([*lines, "", *_examples(rows)])


def _sampled(
    dataset: Dataset, stage: CaptionStage, missing: dict[str, int], pictures: int
) -> pa.Table:
    """Work for `pictures` pictures; a shard gives as many as its share of what is missing."""
    total, before, tables = sum(missing.values()), 0, []
    for shard, count in missing.items():
        first, last = (pictures * n // total for n in (before, before + count))
        before += count
        if last > first:
            tables.append(_some(dataset, stage, shard, last - first))
    return pa.concat_tables(tables)


def _some(dataset: Dataset, stage: CaptionStage, shard: str, pictures: int) -> pa.Table:
    lacking = stage.missing(dataset, shard)
    alt_texts = stage.selected(dataset, shard)
    slots: dict[str, list[tuple[str, int]]] = {}
    for key, kind, index in sorted(lacking):
        slots.setdefault(key, []).append((kind, index))
    keys = [key for key in alt_texts if key in slots]
    chosen = {keys[i * len(keys) // pictures] for i in range(min(pictures, len(keys)))}
    values = stage.inputs(dataset, shard, sorted(chosen))
    rows = WorkRows(shard)
    for key, picture, _ in iter_shard(dataset, shard):
        if key in chosen:
            rows.add(key, picture, alt_texts[key], slots[key], *values[key])
    return rows.table()


def _larger_sides(rows: pa.Table) -> list[int | None]:
    return pc.max_element_wise(rows.column("sent_width"), rows.column("sent_height")).to_pylist()


def _mean(rows: pa.Table, name: str) -> float | None:
    return pc.mean(rows.column(name)).as_py()


def _told(tokens: float | None) -> str:
    return "unknown" if tokens is None else f"{tokens:.0f}"


def _token_cost(settings: RecaptionCommandSettings, rows: pa.Table, left: int) -> list[str]:
    """What an API charges, where its prices are given."""
    prices = {
        "prompt_tokens": settings.price_per_million_input_tokens,
        "output_tokens": settings.price_per_million_output_tokens,
    }
    if not any(prices.values()):
        return []
    # Tries that were repeated are paid as well; a row tells the tokens of its last.
    tries = _mean(rows, "attempts") or 1.0
    means = {name: _mean(rows, name) for name in prices}
    if any(means[name] is None for name, price in prices.items() if price):
        return ["the captioner does not tell its tokens, so their price is unknown"]
    cost = sum(
        left * tries * (means[name] or 0) * price / _MILLION for name, price in prices.items()
    )
    return [f"at the given prices of tokens: about {cost:.2f}"]


def _examples(rows: pa.Table) -> list[str]:
    told = rows.filter(pc.is_valid(rows.column("raw_text"))).to_pylist()
    step = max(1, len(told) // EXAMPLES)
    return [
        f"  {row['kind']}, {row['reason'] or 'ok'}: {row['text'] or row['raw_text']}"
        for row in told[::step][:EXAMPLES]
    ]
