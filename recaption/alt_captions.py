"""Alt texts as captions of kind "alt", so that training draws every kind from one table."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from curate.dataset import CAPTIONS, Dataset
from curate.stage import Stage
from recaption.caption import stored_samples
from recaption.caption_rows import FAILED, OK
from recaption.gates import count_words

ALT = "alt"
"""Kind and source of alt texts."""


class AltCaptionStage(Stage):
    """Writes captions/alt/SHARD.parquet: one row for every stored sample, selected or not.

    The text is the alt text exactly as it came; one without a letter or digit fails as "empty".
    """

    name = "alt_captions"
    needs = ("samples",)
    adds = ("captions",)

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the shard's alt texts are written."""
        return dataset.has_shard("captions", shard, ALT)

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Write one shard; counters "ok" and "failed"."""
        rows = alt_caption_rows(stored_samples(dataset, shard))
        dataset.write_table("captions", rows, shard, ALT)
        return dict(Counter(rows.column("status").to_pylist()))


def alt_caption_rows(samples: pa.Table) -> pa.Table:
    """Caption rows of samples with the columns key and alt_text, sorted by key."""
    samples = samples.sort_by("key")
    raw = samples.column("alt_text").combine_chunks()
    words = pa.array(count_words(pc.fill_null(raw, "")), pa.int32())
    said = pc.greater(words, 0)
    count = samples.num_rows
    columns = {name: pa.nulls(count, CAPTIONS.field(name).type) for name in CAPTIONS.names}
    columns |= {
        "key": samples.column("key"),
        "kind": pa.repeat(ALT, count),
        "sample_index": pa.repeat(pa.scalar(0, pa.int32()), count),
        "text": pc.if_else(said, raw, None),
        "raw_text": raw,
        "status": pc.if_else(said, OK, FAILED),
        "reason": pc.if_else(said, None, "empty"),
        "flags": pa.array([[]] * count, pa.list_(pa.string())),
        "words": pc.if_else(said, words, None),
        "engine": pa.repeat("none", count),
        "alt_text_shown": pa.repeat(False, count),
    }
    return pa.table(columns)
