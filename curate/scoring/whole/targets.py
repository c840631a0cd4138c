"""Embeddings from outside as unit vectors: a dataset, a .npy or a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.base.arrow_columns import to_numpy
from curate.base.errors import ConfigError
from curate.base.files import sha256_file
from curate.store.dataset import Dataset
from curate.store.sample_view import tables_version

Vectors = NDArray[np.float32]


def reference_vectors(path: Path, column: str = "image") -> Vectors:
    """(R, D) unit vectors of a dataset directory, a .npy or a Parquet file.

    Raises:
        ConfigError: it is none of these or holds none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.is_dir():
            dataset = Dataset.open(path)
            shards = [name for name in dataset.shards() if dataset.has_shard("embeddings", name)]
            parts = [
                to_numpy(dataset.read_table("embeddings", name, columns=[column]).column(0))
                for name in shards
            ]
            raw = np.concatenate(parts) if parts else np.zeros((0, 0))
        elif path.suffix == ".npy":
            raw = np.load(path, allow_pickle=False)
        else:
            raw = to_numpy(pq.read_table(path, columns=[column]).column(0))
    except (OSError, ValueError, KeyError, pa.ArrowInvalid) as error:
        raise ConfigError(f"The reference {path} cannot be read: {error}.") from error
    if raw.ndim != 2 or not raw.size:
        raise ConfigError(
            f"The reference {path} holds no embeddings; give a dataset, a .npy of shape (R, D) or "
            f"a Parquet file with the list column {column!r}."
        )
    vectors, known = units(raw)
    return vectors[known]


def reference_mark(reference: str | None) -> str | None:
    """A mark that changes when the reference does; None without one or where it is gone."""
    if reference is None:
        return None
    path = Path(reference)
    if path.is_dir():
        return tables_version(Dataset(path), ["embeddings"])
    return sha256_file(path) if path.exists() else None


def units(raw: NDArray[Any]) -> tuple[Vectors, NDArray[np.bool_]]:
    """Rows at unit length, zeros where there is no vector, and where there is one."""
    vectors = np.asarray(raw, np.float32)
    norms = np.linalg.norm(vectors, axis=1) if vectors.size else np.zeros(len(vectors))
    known = np.isfinite(norms) & (norms > 0)
    vectors = np.where(known[:, None], vectors / np.where(known, norms, 1)[:, None], 0)
    return np.asarray(vectors, np.float32), known
