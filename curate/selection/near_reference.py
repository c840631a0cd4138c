"""Samples that look like a reference set: their cluster is the nearest one of a reference picture.

This is DataComp's image-based filter (Gadre et al., "DataComp: In search of the next generation of
multimodal datasets", 2023, section 3.3, and mlfoundations/datacomp, baselines/apply_filter.py):
k-means over the pool's image embeddings, each reference picture picks the centroid with the
largest inner product, and the samples of the picked clusters stay. The paper clusters CLIP
ViT-L/14 embeddings into 100,000 clusters with faiss (20 iterations) and takes ImageNet-1k's
training pictures as the reference; both are the caller's choice here. Centroids are
kept on the unit sphere, so that nearest by angle and by distance are the same.

Cost: 20 passes over at most 256 training vectors a cluster (bounded by TRAINING), then one over all
embeddings, a shard at a time: N clusters x N samples x width multiplications. Memory: the training
vectors in float32, one shard, and the keys that stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.arrow_columns import to_numpy
from curate.base.errors import ConfigError, DatasetError
from curate.duplicates.candidates.clusters import kmeans
from curate.scoring.whole.targets import Vectors, reference_mark, reference_vectors, units
from curate.store.dataset import Dataset

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ITERATIONS = 20
TRAINING = 1_000_000
"""Vectors at most that k-means sees: 2 GiB at 512 numbers each."""
_PER_CLUSTER = 256


class NearReference:
    """Clusters a dataset's embeddings and remembers which clusters a reference set picks.

    Raises:
        ConfigError: the reference cannot be read, or has vectors of another width.
        DatasetError: the dataset has no such embeddings.
    """

    def __init__(self, dataset: Dataset, reference: Path, clusters: int, column: str) -> None:
        self._dataset, self._column = dataset, column
        targets = reference_vectors(reference, column)
        sample = self._sample(min(TRAINING, _PER_CLUSTER * clusters))
        if sample.shape[1] != targets.shape[1]:
            raise ConfigError(
                f"The embeddings of {reference} have {targets.shape[1]} numbers and those of "
                f"{dataset.directory} {sample.shape[1]}; embed both with the same CLIP model."
            )
        if len(sample) < clusters:
            raise ConfigError(
                f"{clusters} clusters of {len(sample)} samples make no sense; say "
                f"--reference-clusters with at most a tenth of the samples."
            )
        self.centroids = kmeans(sample, clusters, ITERATIONS, _PER_CLUSTER)
        self.chosen = np.unique(nearest(targets, self.centroids))
        self._record = {
            "reference": str(reference.absolute()),
            "mark": reference_mark(str(reference)),
            "clusters": clusters,
            "clusters_chosen": len(self.chosen),
            "embedding": column,
        }

    def record(self) -> dict[str, Any]:
        """What the column near_reference was made with."""
        return self._record

    def keys(self) -> Iterator[pa.Array]:
        """The keys of the samples in the chosen clusters, shard by shard."""
        chosen = np.zeros(len(self.centroids), bool)
        chosen[self.chosen] = True
        for keys, vectors, known in self._shards():
            near = np.zeros(len(known), bool)
            near[known] = chosen[nearest(vectors[known], self.centroids)]
            yield keys.filter(near)

    def register(self, connection: duckdb.DuckDBPyConnection) -> str:
        """Make the table `_near_reference` of the keys, and return its name."""
        import pyarrow as pa

        connection.execute("CREATE TEMP TABLE _near_reference (key VARCHAR)")
        for keys in self.keys():
            rows = connection.from_arrow(pa.table({"key": keys}))
            rows.insert_into("_near_reference")
        return "_near_reference"

    def _sample(self, most: int) -> Vectors:
        """(n, D) embeddings evenly over the dataset, n at most `most`."""
        total = sum(int(known.sum()) for _, _, known in self._shards())
        if not total:
            raise DatasetError(
                f"{self._dataset.directory} has no embeddings {self._column!r}; score it with a "
                f"CLIP model first."
            )
        random = np.random.default_rng(0)
        share = min(1.0, most / total)
        parts = [
            vectors[known][random.random(int(known.sum())) < share]
            for _, vectors, known in self._shards()
        ]
        return np.concatenate(parts)

    def _shards(self) -> Iterator[tuple[pa.Array, Vectors, NDArray[np.bool_]]]:
        """Keys, unit vectors and which exist, of every shard that has any."""
        import pyarrow.parquet as pq

        for shard in self._dataset.shards():
            if not self._dataset.has_shard("embeddings", shard):
                continue
            names = pq.read_schema(self._dataset.table_path("embeddings", shard)).names
            if self._column not in names:
                raise DatasetError(
                    f"{self._dataset.directory} has no embeddings {self._column!r}; there are "
                    f"{', '.join(name for name in names if name != 'key') or 'none'}."
                )
            table = self._dataset.read_table("embeddings", shard, columns=["key", self._column])
            vectors, known = units(to_numpy(table.column(self._column)))
            if known.any():
                yield table.column("key"), vectors, known


def nearest(vectors: Vectors, centroids: Vectors) -> NDArray[np.int64]:
    """(n,) number of the centroid with the largest inner product."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    _, found = index.search(np.ascontiguousarray(vectors), 1)
    numbers: NDArray[np.int64] = found[:, 0]
    return numbers
