"""Alt texts as captions of kind "alt", so that training draws every kind from one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.store.captions import several_alt_texts
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from recaption.captioning.ask import FAILED, OK
from recaption.captioning.rows import text_columns
from recaption.captioning.stage import stored_samples
from recaption.measure.token_counts import CACHED, TokenCounter

ALT = "alt"
"""Kind and source of alt texts."""


class AltCaptionStage(Stage):
    """Writes captions/alt/SHARD.parquet: one row for every stored sample, selected or not.

    A sample that came with a list of texts has a row for each, by sample_index in the list's order;
    the first is its alt text. A text is exactly as it came; one without a letter or digit fails as
    "empty". Words, tokens and language are counted as for any caption (T5's tokens where the hub's
    cache holds its tokenizer); an alt text has no signature, since texts of the web repeat each
    other for reasons of their own.
    """

    name = "alt_captions"
    needs = ("samples",)
    adds = ("captions",)

    def __init__(self) -> None:
        # Alt texts are written at every intake, which must not depend on the hub.
        self.tokens = TokenCounter(CACHED)

    def open(self) -> None:
        """Load the vocabularies."""
        self.tokens.open()

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the shard's alt texts are written."""
        return dataset.has_shard("captions", shard, ALT)

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Write one shard; counters "ok" and "failed"."""
        several = several_alt_texts(dataset, shard)
        rows = alt_caption_rows(stored_samples(dataset, shard), self.tokens, several)
        dataset.write_table("captions", rows, shard, ALT)
        return dict(Counter(rows.column("status").to_pylist()))


def alt_caption_rows(
    samples: pa.Table, tokens: TokenCounter, several: Mapping[str, Sequence[str]] | None = None
) -> pa.Table:
    """Caption rows of samples with the columns key and alt_text, sorted by key and sample_index.

    Args:
        several: key -> all texts of a sample that came with more than its alt text.
    """
    samples = samples.sort_by("key")
    pairs = zip(*(samples.column(name).to_pylist() for name in ("key", "alt_text")), strict=True)
    told = [
        (key, index, text)
        for key, alt_text in pairs
        for index, text in enumerate((several or {}).get(key) or [alt_text])
    ]
    raw = pa.array([text for _, _, text in told], pa.string())
    measured: dict[str, Any] = dict(text_columns(raw.to_pylist(), tokens))
    said = pc.greater(pc.fill_null(pa.array(measured["words"], pa.int32()), 0), 0)
    count = len(told)
    columns = {name: pa.nulls(count, CAPTIONS.field(name).type) for name in CAPTIONS.names}
    for name, values in measured.items():
        kind = CAPTIONS.field(name).type
        columns[name] = pc.if_else(said, pa.array(values, kind), pa.scalar(None, kind))
    columns |= {
        "key": pa.array([key for key, _, _ in told], pa.string()),
        "kind": pa.repeat(ALT, count),
        "sample_index": pa.array([index for _, index, _ in told], pa.int32()),
        "text": pc.if_else(said, raw, None),
        "raw_text": raw,
        "status": pc.if_else(said, OK, FAILED),
        "reason": pc.if_else(said, None, "empty"),
        "flags": pa.array([[]] * count, pa.list_(pa.string())),
        "engine": pa.repeat("none", count),
        "alt_text_shown": pa.repeat(False, count),
    }
    return pa.table(columns)
