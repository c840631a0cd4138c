"""Duplicates of a whole dataset, at three levels, with every pair on record.

exact      equal bytes as downloaded, or equal decoded pixels.
near       edited copies: re-encoded, resized, cropped, mirrored, turned a little, relit, labelled.
           Candidates come from perceptual hashes of several views and the nearest copy
           descriptors (curate.copy_descriptor).
embedding  the same asked of the nearest CLIP embeddings (SemDeDup's candidates).

Hashes, descriptors and embeddings only propose; curate.agreement decides every near and embedding
pair on the pixels, so that two pictures of one layout (or one subject) are not called copies.

Levels are cumulative. "near" groups by exact and near pairs, "embedding" by all: each level is a
complete answer to "what to drop if I deduplicate this far", in which every dropped sample is near
one that is KEPT at that level (see curate.keep). Exact copies share one fate.

Cost grows linearly with the samples up to about a million (curate.neighbours has the terms), plus
about 2 CPU ms a candidate pair. Memory: 3.3 KB a sample for thumbnails and
hashes, and the embeddings in float32. Flat pictures (one colour, nearly) have no structure to
compare and are only matched exactly.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from curate.agreement import CopyLimits
from curate.arrow_columns import bytes_to_numpy, to_numpy
from curate.copies import (
    FLAT,
    Found,
    Samples,
    Verifier,
    embedding_pairs,
    exact_pairs,
    near_pairs,
    with_exact,
)
from curate.copy_descriptor import WIDTH
from curate.dataset import DUPLICATE_PAIRS, DUPLICATES, Dataset
from curate.errors import ConfigError, DatasetError
from curate.files import fingerprint
from curate.fingerprints import THUMBNAIL, VIEWS, unpacked
from curate.keep import keep_best
from curate.neighbours import MAX_RADIUS
from curate.select import sample_view, tables_version
from curate.settings import Settings
from curate.thumbnails import Thumbnails, scratch_folder

_NOTE = b"caplab_found"
_READ = ("samples", "scores", "fingerprints", "embeddings")
_VERSION = 2  # of the method; a change of it makes stored results stale


class DuplicateSettings(Settings):
    """What counts as a copy, and which copy to keep."""

    near_bits: int = Field(
        8,
        ge=0,
        le=MAX_RADIUS,
        description="Bits of 64 by which perceptual hashes of a candidate may differ.",
    )
    descriptor_similarity: float | None = Field(
        0.5,
        description="Least cosine of the copy descriptors of a candidate; none leaves candidates "
        "to the hashes alone.",
    )
    copy_share: float = Field(
        CopyLimits.share,
        ge=0,
        le=1,
        description="Least share of the places with detail in which a copy's detail agrees.",
    )
    copy_disagreement: float = Field(
        CopyLimits.disagreement,
        ge=0,
        description="Most that may differ in a copy (labels, logos), as a share of what agrees; "
        "twice as much in photographs that are full of detail.",
    )
    copy_residual: float = Field(
        CopyLimits.residual,
        gt=0,
        description="Largest difference of light elsewhere, as a share of the picture's contrast.",
    )
    embedding_similarity: float | None = Field(
        0.9,
        description="Least cosine of CLIP image embeddings of a candidate; none skips this level.",
    )
    neighbours: int = Field(
        4, ge=1, description="Nearest descriptors and embeddings to look at for each sample."
    )
    quality: list[str] = Field(
        ["width * height", "clip_similarity"],
        description="SQL expressions over a sample's columns, each larger for the better copy; "
        "later ones break ties, and the key does last.",
    )
    duplicate_threads: int = Field(
        1, ge=1, description="Threads of the searches.", json_schema_extra={"identity": False}
    )


def find_duplicates(dataset: Dataset, settings: DuplicateSettings) -> dict[str, int]:
    """Find all duplicates and write the tables duplicate_pairs and duplicates.

    With the same settings over unchanged tables it returns what was found before. Deterministic:
    the same tables give the same bytes; another processor's rounding can move a pair only at the
    very edge of a threshold.

    Returns:
        samples, and for each level its pairs and how many samples it drops, such as
        {"samples": 1000, "exact_pairs": 30, "exact_dropped": 30, "near_pairs": 50, ...}.

    Raises:
        ConfigError: a quality expression that does not work.
        DatasetError: fingerprints are missing; score first.
    """
    mark = fingerprint([_VERSION, settings.identity(), tables_version(dataset, _READ)])
    if (before := _found_before(dataset, mark)) is not None:
        return before
    with scratch_folder(dataset.directory) as scratch:
        return _find(dataset, settings, mark, scratch)


def _find(
    dataset: Dataset, settings: DuplicateSettings, mark: str, scratch: Path
) -> dict[str, int]:
    samples = _load(dataset, settings, scratch)
    exact, representative = exact_pairs(samples)
    chosen = np.flatnonzero((representative == np.arange(len(samples))) & samples.structured)
    verifier = Verifier(samples, settings)
    found = {"exact": exact}
    near = near_pairs(samples, chosen, verifier, settings)
    found["near"] = with_exact(near, exact, samples)
    levels = {"exact": [exact], "near": [exact, near]}
    if settings.embedding_similarity is not None:
        embedding = embedding_pairs(
            *_embeddings(dataset, samples), samples, chosen, near, verifier, settings
        )
        found["embedding"] = with_exact(embedding, exact, samples)
        levels["embedding"] = [exact, near, embedding]
    counts = {"samples": len(samples)}
    pair_tables, group_tables = [], []
    for method, evidence in levels.items():
        pair_tables.append(_pair_rows(method, found[method], samples))
        groups, dropped = _group_rows(method, evidence, representative, samples)
        group_tables.append(groups)
        counts[f"{method}_pairs"] = len(found[method].pairs)
        counts[f"{method}_dropped"] = dropped
    dataset.write_table("duplicate_pairs", pa.concat_tables(pair_tables))
    # The mark stands in the table that is written last, so a killed run leaves none.
    note = {_NOTE: json.dumps({"mark": mark, "counts": counts}).encode()}
    groups = pa.concat_tables(group_tables).replace_schema_metadata(note)
    dataset.write_table("duplicates", groups)
    return counts


def _found_before(dataset: Dataset, mark: str) -> dict[str, int] | None:
    """The counts of an earlier run with this mark."""
    if not (dataset.has_shard("duplicates") and dataset.has_shard("duplicate_pairs")):
        return None
    notes = pq.read_schema(dataset.table_path("duplicates")).metadata or {}
    note = json.loads(notes.get(_NOTE, b"{}"))
    counts: dict[str, int] | None = note.get("counts") if note.get("mark") == mark else None
    return counts


# ---- tables -----------------------------------------------------------------------------------


def _pair_rows(method: str, found: Found, samples: Samples) -> pa.Table:
    a, b = samples.keys[found.pairs[:, 0]], samples.keys[found.pairs[:, 1]]
    swap = a > b
    first, second = np.where(swap, b, a), np.where(swap, a, b)
    order = np.lexsort((second, first))
    columns = [
        pa.array([method] * len(first), pa.string()),
        pa.array(first[order].astype(str), pa.string()),
        pa.array(second[order].astype(str), pa.string()),
        pa.array(found.distance[order]),
    ]
    return pa.table(columns, schema=DUPLICATE_PAIRS)


def _group_rows(
    method: str, evidence: list[Found], representative: NDArray[np.int64], samples: Samples
) -> tuple[pa.Table, int]:
    """Rows of one level for every sample in a group, and how many samples it drops."""
    total = len(samples)
    pairs = np.concatenate([found.pairs for found in evidence])
    distance = np.concatenate([found.distance for found in evidence])
    # Exact copies share the fate of their best, so only bests are weighed against each other.
    bests = representative[pairs]
    keeper = keep_best(bests[bests[:, 0] != bests[:, 1]], np.arange(total))
    keeper = keeper[representative]
    dropped = np.flatnonzero(keeper != np.arange(total))
    kept = np.unique(keeper[dropped])
    rows = np.concatenate([kept, dropped])
    # The first mention of a pair is by the strictest method.
    known: dict[tuple[int, int], float] = {}
    for (a, b), value in zip(bests.tolist(), distance.tolist(), strict=True):
        known.setdefault((min(a, b), max(a, b)), value)
    to_keeper = [
        0.0 if representative[row] == keep else known[(keep, int(representative[row]))]
        for row, keep in zip(dropped.tolist(), keeper[dropped].tolist(), strict=True)
    ]
    order = np.lexsort((rows, keeper[rows]))
    table = pa.table(
        [
            pa.array([method] * len(rows), pa.string()),
            pa.array(samples.keys[rows][order].astype(str), pa.string()),
            pa.array(samples.keys[keeper[rows]][order].astype(str), pa.string()),
            pa.array((keeper[rows] == rows)[order]),
            pa.array(np.array([0.0] * len(kept) + to_keeper, np.float32)[order]),
        ],
        schema=DUPLICATES,
    )
    return table, len(dropped)


# ---- reading ----------------------------------------------------------------------------------


def _load(dataset: Dataset, settings: DuplicateSettings, scratch: Path) -> Samples:
    """Fingerprints of all stored samples, the best sample first, read shard by shard."""
    keys = _ranked(dataset, settings)
    total = len(keys)
    in_order = np.argsort(keys)
    sorted_keys = keys[in_order]
    shards = dataset.shards()
    samples = Samples(
        keys=keys,
        sha256=np.zeros((total, 2), np.uint64),
        pixel_sha256=np.zeros((total, 2), np.uint64),
        phash=np.zeros((total, len(VIEWS)), np.uint64),
        descriptor=np.zeros((total, WIDTH), np.float16),
        structured=np.zeros(total, bool),
        thumbnails=Thumbnails(
            shard := np.zeros(total, np.int32),
            place := np.zeros(total, np.int32),
            lambda number: _thumbnails(dataset, shards[number])[0],
            scratch,
        ),
    )

    def ranks(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the table that are samples, and their ranks."""
        some = key_array(table.column("key"))
        at = np.searchsorted(sorted_keys, some).clip(max=total - 1)
        mine = np.flatnonzero(sorted_keys[at] == some)
        return mine, in_order[at[mine]]

    for number, name in enumerate(shards):
        if not total or not dataset.has_shard("fingerprints", name):
            continue
        table = dataset.read_table("samples", name, columns=["key", "sha256"])
        mine, rank = ranks(table)
        samples.sha256[rank] = digests(table.column("sha256"))[mine]
        table = dataset.read_table("fingerprints", name)
        mine, rank = ranks(table)
        thumbnail, decoded = _unpack(table)
        luma, colour = unpacked(thumbnail)
        spread = np.maximum(luma.std(axis=(1, 2)), colour.std(axis=(2, 3)).max(axis=1))
        samples.pixel_sha256[rank] = digests(table.column("pixel_sha256"))[mine]
        samples.phash[rank] = _hashes(table.column("phash"))[mine]
        samples.descriptor[rank] = descriptors(table)[mine]
        samples.structured[rank] = (decoded & (spread > FLAT))[mine]
        shard[rank], place[rank] = number, mine
    return samples


def _ranked(dataset: Dataset, settings: DuplicateSettings) -> NDArray[np.bytes_]:
    """(N,) keys of all stored samples, the best first."""
    import duckdb

    if not dataset.has_table("fingerprints"):
        raise DatasetError(
            f"{dataset.directory} has no fingerprints yet; finish `caplab curate` on it first."
        )
    order = ", ".join([*(f"({part}) DESC NULLS LAST" for part in settings.quality), "key"])
    with sample_view(dataset) as connection:
        try:
            table = connection.sql(f"SELECT key FROM sample ORDER BY {order}").to_arrow_table()
        except duckdb.Error as error:
            raise ConfigError(
                f"The quality {', '.join(settings.quality)} does not work: "
                f"{str(error).splitlines()[0]}"
            ) from error
    return key_array(table.column("key"))


def _thumbnails(dataset: Dataset, shard: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    return _unpack(dataset.read_table("fingerprints", shard, columns=["key", "thumbnail"]))


def _unpack(table: pa.Table) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    return bytes_to_numpy(table.column("thumbnail"), (THUMBNAIL,))


def descriptors(table: pa.Table) -> NDArray[np.float16]:
    """(B, 64) copy descriptors of a fingerprints shard, zeros where there is none.

    Raises:
        DatasetError: an older version wrote the shard.
    """
    if "descriptor" not in table.column_names:
        raise DatasetError(
            "These fingerprints were written before there were copy descriptors; run `caplab "
            "curate` on the same input and directory again, which computes only what is missing."
        )
    found = np.zeros((table.num_rows, WIDTH), np.float16)
    stored = to_numpy(table.column("descriptor"))
    if stored.shape[1]:
        found[:] = np.nan_to_num(stored)
    return found


def key_array(column: pa.ChunkedArray) -> NDArray[np.bytes_]:
    """Keys as (N,) S32: 32 bytes each in place of a Python string's 80."""
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype="S32")


def digests(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """(N, 2): the first 128 bits of hex sha256s, zeros for null; two never collide by chance."""
    array = column.combine_chunks()
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    out = np.zeros((len(array), 2), np.uint64)
    text = "".join(value[:32] for value in array.drop_null().to_pylist())
    out[valid] = np.frombuffer(bytes.fromhex(text), np.uint64).reshape(-1, 2)
    return out


def _hashes(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    array = column.combine_chunks()
    out = np.zeros((len(array), len(VIEWS)), np.uint64)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    out[valid] = array.flatten().to_numpy().reshape(-1, len(VIEWS))
    return out


def _embeddings(
    dataset: Dataset, samples: Samples
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(N, D) unit image embeddings in the order of the samples, and which exist."""
    keys, parts = [], []
    for shard in dataset.shards():
        if dataset.has_shard("embeddings", shard):
            table = dataset.read_table("embeddings", shard, columns=["key", "image"])
            keys.append(table.column("key").to_numpy(zero_copy_only=False))
            parts.append(to_numpy(table.column("image")))
    width = max((part.shape[1] for part in parts), default=0)
    vectors = np.full((len(samples), width), np.nan, np.float32)
    place = {key: row for row, key in enumerate(samples.keys.tolist())}
    for some, part in zip(keys, parts, strict=True):
        if part.shape[1] == width:
            rows = [place.get(key.encode(), -1) for key in some.tolist()]
            known = np.array(rows) >= 0
            vectors[np.array(rows)[known]] = part[known]
    present = ~np.isnan(vectors[:, 0]) if width else np.zeros(len(samples), bool)
    return np.nan_to_num(vectors), present
