"""A generated dataset directory for `find_duplicates` as a whole: tables alone, no pictures.

Every sample has hashes of its own views, a copy descriptor, a thumbnail (two of 3,000 smooth random
pictures, blended, so that no two samples are alike by chance) and an embedding as those of
pipelines.bench.duplicates_scale. 2% are copies of a sample of the same shard: a flipped bit, a
descriptor and an embedding close by, and the thumbnail with a little noise. Same seed, same bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from curate.base.arrow_columns import to_arrow
from curate.base.files import atomic_path
from curate.pictures.copy_descriptor import WIDTH as DESCRIPTOR
from curate.pictures.perceptual_hashes import VIEWS, thumbnails
from curate.store.dataset import SAMPLES, Dataset

ROWS_PER_SHARD = 10_000
EMBEDDING = 512
COPIES = 0.02
_POOL = 3_000


def write_dataset(directory: Path, size: int, seed: int = 0) -> Dataset:
    """Write samples, scores, fingerprints and embeddings of `size` samples.

    The alt text of a copy is the key of its original, that of any other sample is null.
    """
    dataset = Dataset.create(directory, {"generated": size, "seed": seed}, {})
    random = np.random.default_rng(seed)
    pool = _pool(random)
    topics = random.standard_normal((2_000, EMBEDDING), dtype=np.float32) / EMBEDDING**0.5
    spread = np.arange(1, EMBEDDING + 1, dtype=np.float32) ** -0.5
    spread /= np.linalg.norm(spread)
    for number, start in enumerate(range(0, size, ROWS_PER_SHARD)):
        count = min(ROWS_PER_SHARD, size - start)
        shard = f"{number:05d}"
        copies = np.flatnonzero(random.random(count) < COPIES)
        source = random.choice(np.setdiff1d(np.arange(count), copies), len(copies))
        keys = np.array([f"{value:032x}" for value in start + np.arange(count)])
        hashes = random.integers(0, 2**64, (count, len(VIEWS)), dtype=np.uint64)
        hashes[copies] = hashes[source] ^ (
            np.uint64(1) << random.integers(0, 64, (len(copies), 1)).astype(np.uint64)
        )
        descriptor = _near(random, _unit(random, count, DESCRIPTOR), copies, source, 0.9)
        topic = topics[random.integers(0, len(topics), count)]
        vectors = random.standard_normal((count, EMBEDDING), dtype=np.float32) * spread + topic
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = _near(random, vectors, copies, source, 0.95)
        blend = (pool[random.integers(0, _POOL, count)].astype(np.uint16) * 3) // 5
        blend = blend + (pool[random.integers(0, _POOL, count)].astype(np.uint16) * 2) // 5
        noise = random.integers(-3, 4, (len(copies), pool.shape[1]))
        blend[copies] = np.clip(blend[source].astype(np.int16) + noise, 0, 255)
        samples = dict.fromkeys(SAMPLES.names) | {
            "key": keys.tolist(),
            "shard": [shard] * count,
            "row": (start + np.arange(count)).tolist(),
            "status": ["stored"] * count,
            "width": random.integers(256, 2048, count).tolist(),
            "height": random.integers(256, 2048, count).tolist(),
            "sha256": _digests(random, count),
            "alt_text": _texts(keys, copies, source),
        }
        columns = {
            name: pa.array(value if value is not None else [None] * count, SAMPLES.field(name).type)
            for name, value in samples.items()
        }
        key = pa.array(keys, pa.string())
        fingerprints = {
            "key": key,
            "pixel_sha256": pa.array(_digests(random, count)),
            "phash": to_arrow(hashes, None, pa.list_(pa.uint64())),
            "descriptor": to_arrow(descriptor, None, pa.list_(pa.float16())),
            "thumbnail": to_arrow(blend.astype(np.uint8), None, pa.binary()),
        }
        text = pa.nulls(count, pa.list_(pa.float16()))
        image = to_arrow(vectors, None, pa.list_(pa.float16()))
        dataset.write_table("samples", pa.table(columns), shard)
        scores = {"key": key, "clip_similarity": pa.array(random.random(count, np.float32))}
        dataset.write_table("scores", pa.table(scores), shard)
        dataset.write_table("fingerprints", pa.table(fingerprints), shard)
        dataset.write_table(
            "embeddings", pa.table({"key": key, "image": image, "text": text}), shard
        )
        path = dataset.input_path(shard)
        with atomic_path(path) as temporary:
            pq.write_table(pa.table({"key": key}), temporary)
    return dataset


def _digests(random: np.random.Generator, count: int) -> list[str]:
    text = random.bytes(32 * count).hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def _texts(
    keys: NDArray[np.str_], copies: NDArray[np.int64], source: NDArray[np.int64]
) -> list[str | None]:
    texts: list[str | None] = [None] * len(keys)
    for copy, original in zip(copies.tolist(), source.tolist(), strict=True):
        texts[copy] = str(keys[original])
    return texts


def _pool(random: np.random.Generator) -> NDArray[np.uint8]:
    """(3000, 4608) thumbnails of smooth random pictures."""
    parts = []
    for _ in range(0, _POOL, 500):
        canvas = np.zeros((500, 128, 128, 3), np.float32)
        for cells, weight in ((3, 1.0), (8, 0.7), (24, 0.5)):
            coarse = random.integers(0, 256, (500, cells, cells, 3), np.uint8)
            for row, small in enumerate(coarse):
                fine = Image.fromarray(small).resize((128, 128), Image.Resampling.BICUBIC)
                canvas[row] += (np.asarray(fine, np.float32) - 128) * weight
        parts.append(thumbnails(np.clip(canvas + 128, 0, 255).astype(np.uint8)))
    return np.concatenate(parts)


def _unit(random: np.random.Generator, count: int, width: int) -> NDArray[np.float32]:
    vectors = random.standard_normal((count, width), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _near(
    random: np.random.Generator,
    vectors: NDArray[np.float32],
    copies: NDArray[np.int64],
    source: NDArray[np.int64],
    cosine: float,
) -> NDArray[np.float32]:
    """`vectors` with the rows `copies` moved to about that cosine from the rows `source`."""
    noise = _unit(random, len(copies), vectors.shape[1])
    vectors[copies] = cosine * vectors[source] + (1 - cosine**2) ** 0.5 * noise
    vectors[copies] /= np.linalg.norm(vectors[copies], axis=1, keepdims=True)
    return vectors
