"""The tables of a dataset: their schemas, versions and keys."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pyarrow as pa

from curate.base.errors import DatasetError

CONTRACT_VERSION = 1

# Where a retry prepares a shard's next tar and samples table, and the note that both are complete.
RETRY_DIRECTORY, RETRY_NOTE = "retry", "done.json"

STORED = "stored"
FAILED = "failed"

SAMPLES = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),  # number of the row in its input list, from 0
        ("url", pa.string()),
        ("alt_text", pa.string()),  # exactly as it came, of several the first; null for none
        ("status", pa.string()),  # "stored" or "failed"
        ("reason", pa.string()),  # why it failed: one of curate.base.reasons; null where stored
        ("detail", pa.string()),  # the error's own words, for a person
        ("original_width", pa.int32()),  # pixels, upright
        ("original_height", pa.int32()),
        ("original_format", pa.string()),  # "jpeg", "png", ...: sniffed, not believed
        ("original_bytes", pa.int64()),
        ("width", pa.int32()),  # pixels as stored in the shard
        ("height", pa.int32()),
        ("format", pa.string()),  # file extension in the shard
        ("sha256", pa.string()),  # of the original bytes, hex
        # Of the original, IJG scale, 1 to 100, estimated; null where that was no JPEG.
        ("jpeg_quality", pa.int32()),
    ]
)
ADDED_LATER: Mapping[str, tuple[str, ...]] = {"samples": ("jpeg_quality",)}
"""Columns that files of the same schema version may lack: older ones have nulls."""

# Scorers add their own columns behind the key; see curate.scoring.scorers.
SCORES = pa.schema([("key", pa.string())])

# One row a scored caption; scorers add their columns behind, see curate.scoring.captions.
CAPTION_SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("kind", pa.string()),
        ("source", pa.string()),  # who wrote it
        ("sample_index", pa.int32()),
        ("text_sha256", pa.string()),  # of the text that was scored, first 16 hex digits
    ]
)


EMBEDDINGS = pa.schema(
    [
        ("key", pa.string()),
        ("image", pa.list_(pa.float16())),  # L2-normalised
        ("text", pa.list_(pa.float16())),  # of the alt text, L2-normalised; null without a text
        # image_NAME and text_NAME behind them, of further CLIP models
    ]
)

FINGERPRINTS = pa.schema(
    [
        ("key", pa.string()),
        ("pixel_sha256", pa.string()),  # of the decoded RGB pixels with their size
        ("phash", pa.list_(pa.uint64())),  # 64-bit perceptual hashes, one a view
        ("descriptor", pa.list_(pa.float16())),  # 64, unit length; duplicates.copy_descriptor
        ("thumbnail", pa.binary()),  # small picture, to verify candidates with
    ]
)

DUPLICATE_PAIRS = pa.schema(
    [
        ("method", pa.string()),  # "exact", "near", "embedding" or "semdedup"
        ("key_a", pa.string()),  # key_a < key_b
        ("key_b", pa.string()),
        ("distance", pa.float32()),  # exact: 0; near: Hamming bits; embedding: 1 - cosine
    ]
)

# Levels are cumulative: "near" groups by exact and near pairs, "embedding" by all three kinds.
# "semdedup" stands beside them: exact pairs and cosines alone, nothing verified.
DUPLICATES = pa.schema(
    [
        ("method", pa.string()),
        ("key", pa.string()),
        ("group", pa.string()),  # key of the sample that is kept for the group
        ("kept", pa.bool_()),  # whether this is the kept sample itself
        ("distance", pa.float32()),  # to the kept sample it is near
    ]
)
DUPLICATES_NOTE = b"caplab_found"
"""Note in the table's metadata: the search's mark and counts, and the quality that it kept by."""

# By which methods a sample was compared with all others; see curate.duplicates.earlier_search.
DUPLICATE_SEARCHED = pa.schema(
    [
        ("key", pa.string()),
        ("pixels", pa.uint64()),  # the start of pixel_sha256: which picture was compared
        ("near", pa.bool_()),
        ("embedding", pa.bool_()),
        ("semdedup", pa.bool_()),
    ]
)

# Samples that show a picture of a reference set: evaluation images, or an earlier dataset.
REFERENCE_MATCHES = pa.schema(
    [
        ("key", pa.string()),
        ("purpose", pa.string()),  # "contaminated" or "known": the column of a selection
        ("references", pa.string()),  # name of the reference set
        ("reference", pa.string()),  # path in its folder, or key in its dataset
        ("method", pa.string()),  # "exact" or "near"
        ("distance", pa.float32()),  # exact: 0; near: Hamming bits
    ]
)

CAPTIONS = pa.schema(
    [
        ("key", pa.string()),
        ("kind", pa.string()),  # "alt", "short", "descriptive" or a user template's name
        ("sample_index", pa.int32()),  # 0, 1, ... where an image has several: drawn, or alt texts
        ("text", pa.string()),  # the caption to train on; null unless status is "ok"
        ("raw_text", pa.string()),  # what the captioner said, before repair
        ("status", pa.string()),  # "ok", "rejected" (by a gate) or "failed"
        ("reason", pa.string()),  # the gate or error that decided; null where ok
        ("detail", pa.string()),  # an error's own words; null where there was none
        ("flags", pa.list_(pa.string())),  # every gate that spoke, also after repair
        ("finish_reason", pa.string()),  # "stop" or "length"
        ("attempts", pa.int32()),
        ("words", pa.int32()),  # of the repaired text, accepted or not, as the measures below
        ("clip_tokens", pa.int32()),  # CLIP's BPE, start and end included; above 77 is truncated
        ("t5_tokens", pa.int32()),  # end included; null without a T5 tokenizer
        ("prompt_tokens", pa.int32()),  # read by the captioner, picture included
        ("output_tokens", pa.int32()),  # written by it, end token included
        ("clip_similarity", pa.float32()),  # cosine of picture and caption, first 77 tokens
        ("clip_sentence_mean", pa.float32()),  # of picture and each sentence: nothing is cut off
        ("clip_sentence_min", pa.float32()),
        ("alt_clip_similarity", pa.float32()),  # mean over the alt text's sentences
        ("language", pa.string()),  # ISO 639-1 as detected; null where too short to tell
        (
            "signature",
            pa.binary(),
        ),  # MinHash of its word 3-grams, see recaption.captioning.signature
        ("image_sha256", pa.string()),  # of the picture's bytes in the shard
        ("image_width", pa.int32()),  # of that picture, in pixels
        ("image_height", pa.int32()),
        ("sent_width", pa.int32()),  # as the captioner was shown it
        ("sent_height", pa.int32()),
        ("engine", pa.string()),  # "transformers", "http", ...; "none" for alt texts
        ("model", pa.string()),
        ("model_revision", pa.string()),  # hub revision, or the weights' sha256 for a local folder
        ("prompt_id", pa.string()),
        ("prompt_sha256", pa.string()),
        ("alt_text_shown", pa.bool_()),
        ("prompt_variables", pa.string()),  # JSON of the other values that were shown
        ("sampling", pa.string()),  # JSON of the decoding parameters
        ("seed", pa.int64()),
        ("latency_seconds", pa.float32()),  # of all tries; a batch's time is shared by its rows
        ("versions", pa.string()),  # JSON of the package versions
        ("created_at", pa.timestamp("ms", tz="UTC")),
    ]
)
DERIVED = "derived-"
"""Start of the names of sources whose captions a rule made from stored ones, see
`recaption.transforms.derive`; of such rows `model` is the source of those, `prompt_id` the rule and
`sampling` its JSON."""
WRITTEN_BY, IMPORTED_FROM = "human-", "imported-"
"""Starts of the names of sources of kind `human`: written or marked here, and taken in from files;
see `recaption.human`."""
CAPTIONS_VOLATILE = ("latency_seconds", "created_at")
"""Columns in which two equal runs differ."""

SELECTION = pa.schema([("key", pa.string())])
# Of a balanced selection: how much a row counts, with a mean of 1; see curate.selection.balance.
WEIGHTED_SELECTION = SELECTION.append(pa.field("weight", pa.float64()))

SCHEMAS: Mapping[str, pa.Schema] = {
    "samples": SAMPLES,
    "scores": SCORES,
    "embeddings": EMBEDDINGS,
    "fingerprints": FINGERPRINTS,
    "duplicate_pairs": DUPLICATE_PAIRS,
    "duplicates": DUPLICATES,
    "duplicate_searched": DUPLICATE_SEARCHED,
    "reference_matches": REFERENCE_MATCHES,
    "captions": CAPTIONS,
    "caption_scores": CAPTION_SCORES,
}
SCHEMA_VERSIONS: Mapping[str, int] = dict.fromkeys(SCHEMAS, 1) | {
    "fingerprints": 2,
    "captions": 2,
}

# Tables that let a writer add columns behind the declared ones.
_OPEN_TABLES = frozenset({"scores", "embeddings", "caption_scores"})
# Tables about the dataset as a whole: one file named all.parquet.
WHOLE = "all"


def sample_key(url: str | None, alt_text: str | None, occurrence: int = 0) -> str:
    """The stable key of an input row: 32 hex digits of blake2b over URL, alt text and occurrence.

    Args:
        url, alt_text: as they came; a missing one hashes differently from an empty one.
        occurrence: 0 for the first row with this URL and text, 1 for the second, and so on, so
            that every input row has a key of its own.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (url, alt_text):
        # A length prefix keeps ("ab", "c") apart from ("a", "bc").
        encoded = b"-" if part is None else b"%d:" % len(part) + part.encode("utf-8", "replace")
        digest.update(encoded)
    if occurrence:
        digest.update(b"#%d" % occurrence)
    return digest.hexdigest()


def conform(table: str, rows: pa.Table) -> pa.Table:
    """`rows` in the declared column order and types, with the schema's version in the metadata.

    Raises:
        DatasetError: a declared column is missing, or an undeclared one is there.
    """
    schema = SCHEMAS[table]
    for name in ADDED_LATER.get(table, ()):
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, schema.field(name).type))
    missing = [name for name in schema.names if name not in rows.column_names]
    extra = [name for name in rows.column_names if name not in schema.names]
    if missing:
        raise DatasetError(f"Table {table} needs the columns {', '.join(missing)}.")
    if extra and table not in _OPEN_TABLES:
        raise DatasetError(f"Table {table} declares no columns {', '.join(extra)}.")
    columns = [rows.column(field.name).cast(field.type) for field in schema]
    columns += [rows.column(name) for name in extra]
    fields = [*schema, *(rows.schema.field(name) for name in extra)]
    # A writer's own notes on its columns (keys that start with "caplab_") stay with the table.
    return versioned(table, pa.table(columns, schema=pa.schema(fields, metadata=_notes(rows))))


def versioned(table: str, rows: pa.Table) -> pa.Table:
    """`rows` with the table's name and schema version in the metadata."""
    version = SCHEMA_VERSIONS.get(table, 1)
    return rows.replace_schema_metadata(
        {
            **_notes(rows),
            b"caplab_table": table.encode(),
            b"caplab_schema_version": str(version).encode(),
        }
    )


def _notes(rows: pa.Table) -> dict[bytes, bytes]:
    metadata = rows.schema.metadata or {}
    return {name: text for name, text in metadata.items() if name.startswith(b"caplab_")}
