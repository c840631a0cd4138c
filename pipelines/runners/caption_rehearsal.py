"""`caplab recaption --dry-run N`: caption N pictures, store nothing, and say what is ahead."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.base.progress import counted, progress
from curate.base.telling.words import amount
from curate.store.dataset import Dataset
from curate.store.write_samples import SOURCE_FILE, SOURCE_KEY
from pipelines.runners.captions import plan_captions
from recaption.captioning.stage import CaptionStage, row_counts

_MILLION = 1e6
_LINE = 100  # characters of an alt text
EXAMPLES = 4


@dataclass(frozen=True)
class Prices:
    """What captions cost, in any currency; 0 where it is not asked for.

    Attributes:
        hour: of one worker.
        million_input: tokens that a provider reads.
        million_output: tokens that a provider writes.
    """

    hour: float = 0.0
    million_input: float = 0.0
    million_output: float = 0.0


def rehearse(
    dataset: Dataset, stage: CaptionStage, pictures: int, workers: int, prices: Prices
) -> str:
    """Caption `pictures` pictures, evenly spread over those that lack captions.

    Returns:
        Rate, tokens, accepted share and reasons; captions, hours and money that are left. The time
        to load the captioner stands apart.

    Raises:
        ConfigError: nothing is left to be captioned, or the captioner does not open.
    """
    plan = plan_captions(stage, dataset, workers)
    left = sum(plan.missing.values())
    told = plan.told()
    if not left:
        raise ConfigError(
            f"Nothing is missing: of {amount(plan.wanted, 'caption')} all are written already."
            if plan.wanted
            else f"Nothing is missing ({told})."
            if told
            else f"Selection {stage.settings.selection!r} has no stored pictures."
        )
    work = _sampled(dataset, stage, plan.missing, pictures)
    started = time.perf_counter()
    stage.open()
    opened = time.perf_counter()
    with progress(None, "captions", "caption") as bar, counted(bar.update):
        rows = stage.caption(work)
    seconds = time.perf_counter() - opened
    captions = rows.num_rows
    counts = row_counts(rows)
    reasons = [f"{name} {count}" for name, count in counts.items() if ":" in name]
    sides = [side for side in _larger_sides(rows) if side is not None]
    read, wrote = (_mean(rows, name) for name in ("prompt_tokens", "output_tokens"))
    hours = left * seconds / captions / workers / 3600
    hands = amount(workers, "worker")
    lines = [
        f"{amount(captions, 'caption')} of {amount(work.num_rows, 'picture')} in {seconds:.1f} s, "
        f"after {opened - started:.1f} s to open the captioner",
        f"a worker: {captions / seconds:.2f} captions and {work.num_rows / seconds:.2f} pictures a "
        f"second, at {np.median(sides) if sides else 0:.0f} px (longest side as sent, median), "
        f"{_told(read)} tokens read and {_told(wrote)} written a caption, "
        f"{counts['ok'] / captions:.0%} accepted",
        *([f"not accepted: {', '.join(reasons)}"] if reasons else []),
        *([told] if told else []),
        f"left: {left:,} of {amount(plan.wanted, 'caption')}, about {hours:.2f} hours with {hands}",
    ]
    if prices.hour:
        cost = hours * workers * prices.hour
        lines.append(f"at {prices.hour:g} an hour and worker: about {cost:.2f}")
    lines += _token_cost(prices, rows, left)
    return "\n".join([*lines, "", *_examples(dataset, work, rows)])


def _sampled(
    dataset: Dataset, stage: CaptionStage, missing: dict[str, int], pictures: int
) -> pa.Table:
    """Work for `pictures` pictures; a shard gives as many as its share of what is missing."""
    total, before, tables = sum(missing.values()), 0, []
    for shard, count in missing.items():
        first, last = (pictures * n // total for n in (before, before + count))
        before += count
        if last > first:
            tables.append(_some(dataset, stage, shard, count, last - first))
    return pa.concat_tables(tables)


def _some(dataset: Dataset, stage: CaptionStage, shard: str, count: int, pictures: int) -> pa.Table:
    """Work for `pictures` pictures, evenly spread over those of a shard that lack `count`."""
    (lacking,) = stage.blocks(dataset, shard, count)
    keys, pictures = list(lacking), min(pictures, len(lacking))
    chosen = [keys[i * len(keys) // pictures] for i in range(pictures)]
    return stage.work(dataset, shard, {key: lacking[key] for key in chosen})


def _larger_sides(rows: pa.Table) -> list[int | None]:
    return pc.max_element_wise(rows.column("sent_width"), rows.column("sent_height")).to_pylist()


def _mean(rows: pa.Table, name: str) -> float | None:
    return pc.mean(rows.column(name)).as_py()


def _told(tokens: float | None) -> str:
    return "unknown" if tokens is None else f"{tokens:.0f}"


def _token_cost(prices: Prices, rows: pa.Table, left: int) -> list[str]:
    """What an API charges, where its prices are given."""
    asked = {"prompt_tokens": prices.million_input, "output_tokens": prices.million_output}
    if not any(asked.values()):
        return []
    # Tries that were repeated are paid as well; a row tells the tokens of its last.
    tries = _mean(rows, "attempts") or 1.0
    means = {name: _mean(rows, name) for name in asked}
    if any(means[name] is None for name, price in asked.items() if price):
        return ["the captioner does not tell its tokens, so their price is unknown"]
    cost = sum(
        left * tries * (means[name] or 0) * price / _MILLION for name, price in asked.items()
    )
    return [f"at the given prices of tokens: about {cost:.2f}"]


def _examples(dataset: Dataset, work: pa.Table, rows: pa.Table) -> list[str]:
    """Some pictures, evenly spread: which they are, and every caption of each."""
    pictures = work.select(["shard", "key", "alt_text"]).to_pylist()
    step = max(1, len(pictures) // EXAMPLES)
    lines = []
    for picture in pictures[::step][:EXAMPLES]:
        shard, key = picture["shard"], picture["key"]
        lines.append(f"  {key} in shard {shard}: {_named(dataset, shard, key) or 'no name'}")
        lines.append(f"    came with: {_short(picture['alt_text'] or 'no text')}")
        for row in rows.filter(pc.field("key") == key).to_pylist():
            said = row["text"] or row["raw_text"] or row["detail"] or "nothing"
            lines.append(f"    {row['kind']}, {row['reason'] or 'ok'}: {said}")
    return lines


def _named(dataset: Dataset, shard: str, key: str) -> str:
    """A picture's file in the input and its URL, as far as there are any."""
    samples = dataset.read_table("samples", shard, columns=["key", "url"])
    tables = [(samples, ["url"])]
    with pq.ParquetFile(dataset.input_path(shard)) as given:
        if {"key", SOURCE_FILE, SOURCE_KEY} <= set(given.schema_arrow.names):
            names = [SOURCE_FILE, SOURCE_KEY]
            tables.insert(0, (given.read(columns=["key", *names]), names))
    told = []
    for table, names in tables:
        for row in table.filter(pc.field("key") == key).to_pylist():
            told += [str(row[name]) for name in names if row[name]]
    # Of a picture that lay in a folder, the key there is only its file's name once more.
    return ", ".join(name for n, name in enumerate(told) if not any(name in o for o in told[:n]))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LINE else f"{line[:_LINE]}..."
