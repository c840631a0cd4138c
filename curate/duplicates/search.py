"""Duplicates of a whole dataset, at three levels, with every pair on record.

exact      equal bytes as downloaded, or equal decoded pixels.
near       edited copies: re-encoded, resized, cropped, mirrored, turned a little, relit, labelled.
           Candidates come from perceptual hashes of several views and the nearest copy
           descriptors (curate.pictures.copy_descriptor).
embedding  the same asked of the nearest CLIP embeddings (SemDeDup's candidates).

Hashes, descriptors and embeddings only propose; curate.duplicates.verify decides every near and
embedding pair on the pixels, so that two pictures of one layout (or one subject) are not called
copies.

Levels are cumulative. "near" groups by exact and near pairs, "embedding" by all: each level is a
complete answer to "what to drop if I deduplicate this far", in which every dropped sample is near
one that is KEPT at that level (see curate.duplicates.tables). Exact copies share one fate.

Beside them stands "semdedup", SemDeDup's own rule: equal files, and all pairs of embeddings above a
cosine, nothing verified. It is for who wants one picture of a kind, not one copy of a picture.

New samples are compared with all and old ones with the new alone
(curate.duplicates.earlier_search).

Cost: near-linear in the samples (curate.duplicates.candidates.neighbours has the terms,
docs/duplicates.md the figures), plus 2 to 4 CPU ms a candidate pair that its layout does not rule
out, of which hashes give a sample `look_alikes` at the most. Memory: `BYTES_A_SAMPLE`, and blocks
that fit what is left of `memory_limit`; thumbnails and embeddings stay on disk. Flat pictures (one
colour, nearly) have no structure to compare and are only matched exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.base.column_marks import note, noted_in
from curate.base.files import fingerprint
from curate.base.memory import MemoryLimit, parse_bytes
from curate.base.telling.words import amount
from curate.download.mend import clear_damaged
from curate.duplicates.candidates.vectors import ArrayVectors
from curate.duplicates.earlier_search import (
    MARKS,
    EarlierSearch,
    column_marks,
    kept_tree,
    merged,
    searched_rows,
)
from curate.duplicates.pairs import (
    Search,
    embedding_pairs,
    exact_pairs,
    near_pairs,
    semdedup_pairs,
    with_exact,
)
from curate.duplicates.samples import load_samples, ranked_keys, write_embeddings
from curate.duplicates.settings import DuplicateSettings
from curate.duplicates.tables import group_rows, pair_rows
from curate.duplicates.verify.thumbnails import scratch_folder
from curate.duplicates.verify.verifier import Verifier
from curate.store.contract import DUPLICATES_NOTE
from curate.store.dataset import Dataset
from curate.store.holes import DUPLICATE_TABLES, find_holes, note_finished
from curate.store.sample_view import tables_version

_READ = ("samples", "scores", "fingerprints", "embeddings")
BYTES_A_SAMPLE = 600
"""Keys, hashes, descriptors, and the order of quality: what is in memory for every sample."""
_VERSION = 4  # of the method; a change of it makes stored results stale


def find_duplicates(dataset: Dataset, settings: DuplicateSettings) -> dict[str, int]:
    """Find all duplicates and write the tables duplicate_pairs and duplicates.

    With the same settings over unchanged tables it returns what was found before. Deterministic:
    the same tables give the same bytes; another processor's rounding can move a pair only at the
    very edge of a threshold.

    Returns:
        samples, and for each level its pairs and how many samples it drops, such as
        {"samples": 1000, "crowded": 0, "exact_pairs": 30, "exact_dropped": 30, ...}; crowded:
        samples that have more look-alikes than `look_alikes`.

    Raises:
        ConfigError: a quality expression that does not work.
        DatasetError: fingerprints are missing; score first.
    """
    # What is damaged is searched for again.
    clear_damaged(dataset, [h for h in find_holes(dataset, ()) if h.table in DUPLICATE_TABLES])
    mark = fingerprint([_VERSION, settings.identity(), tables_version(dataset, _READ)])
    if (before := _found_before(dataset, mark)) is not None:
        return before
    with scratch_folder(dataset.directory) as scratch:
        found = _find(dataset, settings, mark, scratch)
    note_finished(dataset, *DUPLICATE_TABLES)
    return found


def _find(
    dataset: Dataset, settings: DuplicateSettings, mark: str, scratch: Path
) -> dict[str, int]:
    keys = ranked_keys(dataset, settings.quality)
    memory = MemoryLimit(parse_bytes(settings.memory_limit)).blocks(len(keys) * BYTES_A_SAMPLE)
    samples = load_samples([(dataset, keys)], scratch)
    exact, representative = exact_pairs(samples)
    chosen = np.flatnonzero((representative == np.arange(len(samples))) & samples.structured)
    marks = _method_marks(dataset, settings)
    before = EarlierSearch(dataset, samples, representative, marks)
    verifier = Verifier(samples, settings)
    found, compared = {"exact": exact}, {"near": chosen}
    descriptors = ArrayVectors(samples.descriptor, chosen)
    tree = kept_tree(dataset, "descriptors", descriptors, marks["near"])
    search = Search(before.fresh("near", chosen), tree, memory)
    new = near_pairs(samples, chosen, verifier, settings, search)
    near = merged(before.pairs("near", chosen), new)
    found["near"] = with_exact(near, exact, samples)
    levels = {"exact": [exact], "near": [exact, near]}
    if "embedding" in marks or "semdedup" in marks:
        vectors, rows = write_embeddings(dataset, samples.keys, chosen, scratch)
        columns = column_marks(dataset, "embeddings", ["image_embedding"])
        tree = kept_tree(dataset, "embeddings", vectors, columns)
    if "embedding" in marks:
        search = Search(before.fresh("embedding", rows), tree, memory)
        further = embedding_pairs(vectors, rows, samples, near, verifier, settings, search)
        embedding = merged(before.pairs("embedding", rows), further)
        found["embedding"] = with_exact(embedding, exact, samples)
        levels["embedding"] = [exact, near, embedding]
        compared["embedding"] = rows
    if "semdedup" in marks:
        assert settings.semdedup_epsilon is not None
        search = Search(before.fresh("semdedup", rows), tree, memory)
        further = semdedup_pairs(vectors, rows, settings.semdedup_epsilon, search)
        semdedup = merged(before.pairs("semdedup", rows), further)
        found["semdedup"] = with_exact(semdedup, exact, samples)
        levels["semdedup"] = [exact, semdedup]
        compared["semdedup"] = rows
    counts = {"samples": len(samples), "crowded": new.crowded}
    pair_tables, group_tables = [], []
    for method, evidence in levels.items():
        pair_tables.append(pair_rows(method, found[method], samples))
        groups, dropped = group_rows(method, evidence, representative, samples)
        group_tables.append(groups)
        counts[f"{method}_pairs"] = len(found[method].pairs)
        counts[f"{method}_dropped"] = dropped
    pairs = pa.concat_tables(pair_tables).replace_schema_metadata(note(marks, MARKS))
    dataset.write_table("duplicate_pairs", pairs)
    dataset.write_table("duplicate_searched", searched_rows(samples, compared, marks))
    # The mark stands in the table that is written last, so a killed run leaves none.
    last = note({"mark": mark, "counts": counts, "quality": settings.quality}, DUPLICATES_NOTE)
    groups = pa.concat_tables(group_tables).replace_schema_metadata(last)
    dataset.write_table("duplicates", groups)
    return counts


def _method_marks(dataset: Dataset, settings: DuplicateSettings) -> dict[str, str]:
    """Method -> fingerprint of all that its pairs depend on: not the quality, nor the samples."""
    embedding, epsilon = settings.embedding_similarity, settings.semdedup_epsilon
    others = ("quality", "embedding_similarity", "semdedup_epsilon")
    rule = {name: value for name, value in settings.identity().items() if name not in others}
    near = fingerprint([_VERSION, rule, column_marks(dataset, "fingerprints")])
    columns = column_marks(dataset, "embeddings", ["image_embedding"])
    marks = {"near": near}
    if embedding is not None:
        marks["embedding"] = fingerprint([near, embedding, columns])
    if epsilon is not None:
        marks["semdedup"] = fingerprint([_VERSION, epsilon, columns])
    return marks


def _found_before(dataset: Dataset, mark: str) -> dict[str, int] | None:
    """The counts of an earlier run with this mark."""
    if not (dataset.has_shard("duplicates") and dataset.has_shard("duplicate_pairs")):
        return None
    last = noted_in(dataset.table_path("duplicates"), DUPLICATES_NOTE)
    counts: dict[str, int] | None = last.get("counts") if last.get("mark") == mark else None
    return counts


def describe(counts: Mapping[str, int]) -> str:
    """The counts of `find_duplicates`, one line a level."""
    methods = [name.removesuffix("_pairs") for name in counts if name.endswith("_pairs")]
    lines = [f"{amount(counts['samples'], 'sample')}"]
    for method in methods:
        pairs, dropped = counts[f"{method}_pairs"], counts[f"{method}_dropped"]
        lines.append(f"{method:<9}  {pairs:>11,} pairs  {dropped:>11,} to drop at this level")
    if counts["crowded"]:
        lines.append(
            f"{amount(counts['crowded'], 'sample has', 'samples have')} more look-alikes by hashes "
            "than look_alikes allows; the likeliest were looked at"
        )
    return "\n".join(lines)
