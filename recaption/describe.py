"""What a set of captions is like, without a judge: lengths, variety, habits, acceptance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import Dataset
from curate.errors import DatasetError
from recaption.alt_captions import ALT
from recaption.caption_rows import OK

OPENING_WORDS = 3


@dataclass(frozen=True)
class CaptionSetSummary:
    """Statistics of the captions of one source and kind; texts are the accepted ones.

    Attributes:
        rows: captions asked for.
        accepted_share: accepted of all rows, 0..1.
        reasons: reason -> rows not accepted, the most frequent first.
        flags: gate -> rows that it spoke on, accepted ones included.
        retried_share: rows that took more than one try.
        words_mean, words_p5, words_p50, words_p95: words of a caption.
        tokens_mean: output tokens of a caption; None where the engine does not tell.
        distinct_texts: different texts among all, 0..1.
        distinct_2: different word pairs among all word pairs, 0..1 (distinct-2, Li et al. 2016);
            it falls with the number of captions, so compare sets of equal size only.
        openings: the commonest first three words -> share of captions that begin with them.
        alt_copy_share: captions equal to their alt text, 0..1.
    """

    source: str
    kind: str
    rows: int
    accepted_share: float
    reasons: dict[str, int]
    flags: dict[str, int]
    retried_share: float
    words_mean: float
    words_p5: float
    words_p50: float
    words_p95: float
    tokens_mean: float | None
    distinct_texts: float
    distinct_2: float
    openings: dict[str, float]
    alt_copy_share: float


def describe(dataset: Dataset, source: str | None = None) -> list[CaptionSetSummary]:
    """Summaries of every source and kind, or of one source, sorted by both.

    Raises:
        DatasetError: there are no captions, or none of that source.
    """
    sources = dataset.caption_sources()
    if source is not None and source not in sources:
        known = ", ".join(sources) or "none yet"
        raise DatasetError(f"There are no captions of {source!r} (sources: {known}).")
    summaries = []
    for name in [source] if source is not None else sources:
        captions = _read(dataset, name)
        for kind in sorted(set(captions.column("kind").to_pylist())):
            rows = captions.filter(pc.field("kind") == kind)
            summaries.append(summarise(rows, name, kind))
    if not summaries:
        raise DatasetError(f"{dataset.directory} holds no captions yet.")
    return summaries


def summarise(captions: pa.Table, source: str, kind: str) -> CaptionSetSummary:
    """The summary of a table of captions of one kind, with at least one row."""
    accepted = captions.filter(pc.field("status") == OK)
    texts = accepted.column("text").to_pylist()
    words = accepted.column("words").drop_null().to_numpy().astype(float)
    tokens = pc.mean(accepted.column("output_tokens")).as_py()
    flags = Counter(pc.list_flatten(captions.column("flags")).to_pylist())
    reasons = Counter(reason for reason in captions.column("reason").to_pylist() if reason)
    quantiles = np.quantile(words, [0.05, 0.5, 0.95]) if len(words) else np.full(3, np.nan)
    retried = pc.sum(pc.greater(captions.column("attempts"), 1)).as_py() or 0
    return CaptionSetSummary(
        source=source,
        kind=kind,
        rows=captions.num_rows,
        accepted_share=accepted.num_rows / captions.num_rows,
        reasons=dict(reasons.most_common()),
        flags=dict(flags.most_common()),
        retried_share=retried / captions.num_rows,
        words_mean=float(words.mean()) if len(words) else float("nan"),
        words_p5=float(quantiles[0]),
        words_p50=float(quantiles[1]),
        words_p95=float(quantiles[2]),
        tokens_mean=tokens,
        distinct_texts=len(set(texts)) / len(texts) if texts else float("nan"),
        distinct_2=distinct_2(texts),
        openings=top_openings(texts),
        alt_copy_share=1.0 if kind == ALT else flags["alt_copy"] / captions.num_rows,
    )


def distinct_2(texts: Sequence[str]) -> float:
    """Different word pairs among all word pairs of all texts; nan without a pair."""
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        words = text.lower().split()
        pairs.update(pairwise(words))
    return len(pairs) / pairs.total() if pairs else float("nan")


def top_openings(texts: Sequence[str], count: int = 5) -> dict[str, float]:
    """The commonest first three words, in lower case, with their share of all texts."""
    openings = Counter(" ".join(text.lower().split()[:OPENING_WORDS]) for text in texts)
    return {opening: found / len(texts) for opening, found in openings.most_common(count)}


def _read(dataset: Dataset, source: str) -> pa.Table:
    columns = ["kind", "text", "status", "reason", "flags", "attempts", "words", "output_tokens"]
    shards = sorted(path.stem for path in dataset.table_directory("captions", source).glob("[!.]*"))
    return pa.concat_tables(
        dataset.read_table("captions", shard, source, columns=columns) for shard in shards
    )
