"""Read accepted captions by key, for whoever trains on them or measures them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from curate.store.scans import sql_text
from curate.store.write_samples import ALT_TEXTS

SCORED_CAPTION = ("key", "kind", "source", "sample_index", "text_sha256")
"""Columns that say of which caption a row of caption_scores speaks; the others are scores."""

MADE_FROM = "made_from"


def accepted_captions(
    dataset: Dataset, kinds: Sequence[str], sources: Mapping[str, str] | None = None
) -> pa.Table:
    """Accepted captions (status "ok") of the given kinds.

    Args:
        sources: kind -> who wrote it, where several captioners wrote that kind; `a+b` as in
            `accepted_sql`.

    Returns:
        Columns key, kind, source, sample_index, text; sorted by key, kind and sample_index, so
        the same tables give the same order. Memory grows with the number of captions read.

    Raises:
        ConfigError: a kind that nobody wrote, or one that several wrote while `sources` does not
            say whose to take; the sentence names them.
    """
    chosen = caption_writers(dataset, kinds, sources)
    connection = dataset.connect(["captions"])
    tables = [
        connection.sql(accepted_sql(dataset, kind, writer)).to_arrow_table()
        for kind, writer in chosen.items()
    ]
    order = [(name, "ascending") for name in ("key", "kind", "sample_index")]
    return pa.concat_tables(tables).sort_by(order)


def accepted_sql(dataset: Dataset, kind: str, writer: str) -> str:
    """SQL of key, kind, source, sample_index and text of the accepted captions of a kind.

    Args:
        writer: of `caption_writers`; of `a+b` a picture takes those of a, or of b if a has none.
    """
    parts = [
        f"SELECT key, kind, {sql_text(source)} AS source, sample_index, text, {rank} AS rank "
        f"FROM {dataset.scan('captions', source)} WHERE kind = {sql_text(kind)} AND status = 'ok'"
        for rank, source in enumerate(sources_of(dataset, writer))
    ]
    first = "QUALIFY rank = min(rank) OVER (PARTITION BY key)" if len(parts) > 1 else ""
    return f"SELECT * EXCLUDE (rank) FROM (SELECT * FROM ({' UNION ALL '.join(parts)}) {first})"


def sources_of(dataset: Dataset, writer: str) -> list[str]:
    """The sources that a writer of `caption_writers` stands for, the preferred one first."""
    if writer in dataset.caption_sources():
        return [writer]
    return list(dict.fromkeys(part.strip() for part in writer.split("+")))


def sources_read(dataset: Dataset, writers: Mapping[str, str]) -> list[str]:
    """All sources whose captions the writers of `caption_writers` stand for, sorted."""
    return sorted({one for writer in writers.values() for one in sources_of(dataset, writer)})


@dataclass(frozen=True)
class CaptionRef:
    """A stored caption, named so that one made from it can tell whether it has changed since."""

    kind: str
    source: str
    sample_index: int
    text_sha256: str  # `text_mark` of its text


def text_mark(text: str) -> str:
    """What a text is told by: the first 16 hex digits of its sha256."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def made_from(refs: Sequence[CaptionRef]) -> str:
    """JSON of the captions that one was made from, as its `prompt_variables` tell them."""
    return json.dumps({MADE_FROM: [vars(ref) for ref in refs]}, sort_keys=True)


def read_made_from(prompt_variables: str | None) -> list[CaptionRef]:
    """The captions that `made_from` told; empty for any other caption."""
    told = json.loads(prompt_variables or "{}").get(MADE_FROM)
    return [CaptionRef(**ref) for ref in told] if isinstance(told, list) else []


def several_alt_texts(dataset: Dataset, shard: str) -> dict[str, list[str]]:
    """Key -> all alt texts, the samples table's first, of the rows that came with several.

    They stand in the shard's input rows alone, which no stage changes.
    """
    path = dataset.input_path(shard)
    # Absent in datasets that were planned before lists of captions were taken in.
    if not path.exists() or ALT_TEXTS not in pq.read_schema(path).names:
        return {}
    with pq.ParquetFile(path) as parquet:
        rows = parquet.read(columns=["key", ALT_TEXTS])
    rows = rows.filter(rows.column(ALT_TEXTS).is_valid())
    return dict(zip(*(rows.column(n).to_pylist() for n in ("key", ALT_TEXTS)), strict=True))


def caption_writers(
    dataset: Dataset, kinds: Sequence[str], sources: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Kind -> whose captions to take, one source or `a+b`; cheap to ask before work starts.

    Raises:
        ConfigError: as `accepted_captions`.
    """
    writers = {}
    for kind in kinds:
        wanted = (sources or {}).get(kind)
        parts = [None] if wanted is None else sources_of(dataset, wanted)
        writers[kind] = "+".join(caption_writer(dataset, kind, part) for part in parts)
    return writers


def captioned_keys(dataset: Dataset, kind: str, source: str | None = None) -> set[str]:
    """Keys of the samples that have an accepted caption of `kind`; empty if nobody wrote it."""
    if not writers_of(dataset, kind):
        return set()
    captions = accepted_captions(dataset, [kind], {kind: source} if source else None)
    return set(captions.column("key").to_pylist())


def writers_of(dataset: Dataset, kind: str, accepted: bool = False) -> list[str]:
    """Sources that wrote at least one row of `kind`, or one that was accepted."""
    condition = "kind = $kind AND status = 'ok'" if accepted else "kind = $kind"
    writers = []
    connection = dataset.connect(["captions"])
    for source in dataset.caption_sources():
        found = connection.execute(
            f"SELECT 1 FROM {dataset.scan('captions', source)} WHERE {condition} LIMIT 1",
            {"kind": kind},
        ).fetchone()
        if found:
            writers.append(source)
    return writers


def caption_writer(dataset: Dataset, kind: str, wanted: str | None = None) -> str:
    """The one source whose captions of a kind to take: the one that is wanted, or that there is.

    Raises:
        ConfigError: as `accepted_captions`.
    """
    writers = writers_of(dataset, kind)
    if wanted is not None:
        if wanted not in writers:
            known = ", ".join(writers) or "nobody"
            raise ConfigError(f"{wanted!r} wrote no {kind} captions (writers: {known}).")
        return wanted
    if not writers:
        raise ConfigError(
            f"There are no {kind} captions yet; write them with "
            f"`caplab recaption {dataset.directory} --kinds {kind}`."
        )
    if len(writers) > 1:  # of one who only rejected there is nothing to take
        writers = writers_of(dataset, kind, accepted=True) or writers
    if len(writers) > 1:
        raise ConfigError(
            f"Several captioners wrote {kind} captions ({', '.join(writers)}); say whose to take, "
            f"as in --caption-sources {kind}={writers[-1]}, or in which order, as in "
            f"{kind}={'+'.join(writers[:2])}: the second one's for pictures that the first lacks."
        )
    return writers[0]
