"""A generated dataset of any size: plausible tables, a few thousand real little pictures.

    python -m pipelines.bench.common.generate_dataset DIR --rows 1000000

Nothing is downloaded, decoded or scored: scores, hosts, failures, languages and duplicates are
drawn at random with the shapes and correlations that web data has, so that selecting, reporting and
searching can be tried at a size that the pictures of no test machine allow. A million rows take
about half a minute. Only the first shards, small ones, have tars: what shows pictures shows theirs.

The same settings give the same bytes of every table.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from curate.base.arrow_columns import to_arrow
from curate.base.files import atomic_path
from curate.base.provenance import package_versions
from curate.store.contract import CAPTIONS, SAMPLES
from curate.store.dataset import Dataset
from curate.store.shards import write_shard
from pipelines.bench.common.generated_duplicates import (
    PICTURE_ROWS,
    Groups,
    fingerprint_rows,
    group_rows,
    write_duplicates,
)
from pipelines.bench.common.generated_web import Web

ROWS_PER_SHARD = 10_000
SIDE = 64

# Reasons with their share of a living host's failures; a dead host fails with the first.
_FAILURES = (
    ("dns", 0.06, "Name or service not known"),
    ("http_404", 0.42, "HTTP 404 Not Found"),
    ("http_403", 0.11, "HTTP 403 Forbidden"),
    ("timeout", 0.09, "no byte for 10 s"),
    ("connection_refused", 0.03, "[Errno 111] Connection refused"),
    ("http_429", 0.02, "HTTP 429 Too Many Requests"),
    ("http_5xx", 0.04, "HTTP 503 Service Unavailable"),
    ("not_an_image", 0.06, "the bytes begin with '<!doctype html>'"),
    ("broken_image", 0.02, "image file is truncated (1031 bytes not processed)"),
    ("disallowed_by_header", 0.03, "X-Robots-Tag: noai, noimageai"),
    ("too_small", 0.09, "120 x 90"),
    ("aspect", 0.03, "970 x 90"),
)


@dataclass(frozen=True)
class Shape:
    """What to generate. `picture_shards` shards of 500 rows come first, with tars."""

    rows: int = 1_000_000
    picture_shards: int = 8
    embedding_width: int = 64
    seed: int = 0
    fingerprints: bool = False
    """Whether duplicates can be searched for: 5 kB a row, and 20 seconds at first."""

    def shards(self) -> Iterator[tuple[str, int, int]]:
        """Name, first row and number of rows of every shard."""
        start, number = 0, 0
        while start < self.rows:
            size = PICTURE_ROWS if number < self.picture_shards else ROWS_PER_SHARD
            size = min(size, self.rows - start)
            yield f"{number:05d}", start, size
            start, number = start + size, number + 1


def generate(directory: Path | str, shape: Shape | None = None) -> Dataset:
    """Write the dataset, or leave it as it is where the same shape was generated before.

    Raises:
        DatasetError: the directory holds something else.
    """
    shape = shape or Shape()
    record = {
        "settings": {"clip_model": "ViT-L-14-quickgelu", "clip_pretrained": "openai"},
        "versions": package_versions(),
        "weights": {},
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    dataset = Dataset.create(directory, {"generated": 2, **asdict(shape)}, record)
    if dataset.has_shard("duplicates"):
        return dataset
    random = np.random.default_rng(shape.seed)
    web = Web(random, hosts=max(40, shape.rows // 50))
    groups = group_rows(shape.rows, shape.picture_shards * PICTURE_ROWS, random)
    keys, quality = [], []
    for name, start, size in shape.shards():
        shard = _Shard(dataset, name, start, size, groups, shape)
        keys.append(shard.write(web, pictures=int(name) < shape.picture_shards))
        quality.append(shard.quality)
    write_duplicates(dataset, groups, np.concatenate(keys), np.concatenate(quality))
    return dataset


class _Shard:
    """Draws and writes one shard's tables."""

    def __init__(
        self, dataset: Dataset, name: str, start: int, size: int, groups: Groups, shape: Shape
    ) -> None:
        self.dataset, self.name, self.groups, self.shape = dataset, name, groups, shape
        self.random = np.random.default_rng([shape.seed, start])
        self.rows = np.arange(start, start + size)
        self.quality = np.zeros(size)
        # The row of this shard that each row is a copy of, or the row itself.
        first = groups.first[self.rows] - start
        self.place = np.where((first >= 0) & (first < size), first, np.arange(size))

    def write(self, web: Web, pictures: bool) -> NDArray[np.bytes_]:
        """(size,) keys of all rows, empty where the row failed."""
        random, size = self.random, len(self.rows)
        digits = random.bytes(16 * size).hex()
        keys = np.array([digits[32 * i : 32 * i + 32] for i in range(size)])
        host = web.draw_hosts(random, size)
        language, alt_text = web.texts(random, size)
        failed = random.random(size) < np.where(web.dead[host], 1.0, web.failure[host])
        stored = ~failed
        share = np.array([share for _, share, _ in _FAILURES])
        why = random.choice(len(_FAILURES), size, p=share / share.sum())
        why[web.dead[host]] = 0
        reasons, details = (np.array([row[place] for row in _FAILURES])[why] for place in (0, 2))
        width, height = self._sides()
        scale = SIDE / np.maximum(width, height) if pictures else 512 / np.minimum(width, height)
        scale = np.minimum(1, scale)
        bytes_ = width * height * random.uniform(0.08, 0.35, size)
        formats = random.choice(["jpeg", "jpeg", "jpeg", "png", "webp"], size)
        self.quality = np.where(stored, width * height, -1.0)
        measured = {
            "original_width": width,
            "original_height": height,
            "original_format": formats,
            "original_bytes": bytes_,
            "width": np.maximum(width * scale, 1),
            "height": np.maximum(height * scale, 1),
            "format": np.full(size, "jpg"),
            "sha256": np.array([key * 2 for key in keys]),
        }
        samples = pa.table(
            {
                "key": pa.array(keys),
                "shard": pa.array(np.full(size, self.name)),
                "row": pa.array(self.rows),
                "url": web.urls(host, self.rows),
                "alt_text": alt_text,
                "status": pa.array(np.where(failed, "failed", "stored")),
                "reason": pa.array(reasons, mask=stored),
                "detail": pa.array(details, mask=stored),
                **{
                    name: pa.array(values, mask=failed).cast(SAMPLES.field(name).type, safe=False)
                    for name, values in measured.items()
                },
            },
            schema=SAMPLES,
        )
        self.dataset.write_table("samples", samples, self.name)
        with atomic_path(self.dataset.input_path(self.name)) as temporary:
            pq.write_table(samples.select(["key", "url", "alt_text"]), temporary)
        scores = self._scores(language, alt_text, web.quality[host], width, height)
        scores = scores.add_column(0, "key", pa.array(keys)).filter(pa.array(stored))
        self.dataset.write_table("scores", scores, self.name)
        self._vectors(pa.array(keys[stored]), self.rows[stored])
        if pictures:
            self._pictures(keys, stored, samples)
        return np.where(stored, keys, "").astype("S32")

    def _sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(size,) widths and heights; an exact copy has those of its original."""
        random, size = self.random, len(self.rows)
        long = np.exp(random.normal(6.6, 0.55, size)).clip(120, 6000)
        short = long / np.exp(np.abs(random.normal(0.2, 0.28, size))).clip(1, 3)
        tall = random.random(size) < 0.3
        exact = np.where(self.groups.method[self.rows] == 0, self.place, np.arange(size))
        return np.where(tall, short, long)[exact], np.where(tall, long, short)[exact]

    def _scores(
        self,
        language: NDArray[np.str_],
        alt_text: pa.Array,
        liking: NDArray[np.float64],
        width: NDArray[np.float64],
        height: NDArray[np.float64],
    ) -> pa.Table:
        random, size = self.random, len(self.rows)
        undecodable = random.random(size) < 0.001
        fits, common = random.random(size) < 0.68, random.normal(0, 1, size)
        foreign = 0.02 * (language != "en")

        def similarity(fitting: float, other: float, spread: float) -> NDArray[np.float64]:
            noise = random.normal(0, 0.017, size)
            return np.where(fits, fitting, other) - foreign + spread * common + noise

        def often(share: float, a: tuple[float, float], b: tuple[float, float]) -> NDArray[Any]:
            """A beta `a` in that share of the rows, a beta `b` elsewhere."""
            chosen = random.random(size) < share
            return np.where(chosen, random.beta(*a, size), random.beta(*b, size))

        looks = 0.76 + 0.32 * np.log(width * height) + 0.5 * liking
        scores = {
            "clip_similarity": similarity(0.235, 0.13, 0.038),
            "clip_similarity_b32": similarity(0.29, 0.19, 0.035),
            "aesthetic": looks + random.normal(0, 0.62, size),
            "nsfw": often(0.03, (6, 2), (0.35, 9)),
            "watermark": often(0.12, (5, 1.5), (0.6, 5)),
            "aspect_ratio": np.maximum(width, height) / np.minimum(width, height),
            "blur": np.exp(random.normal(5.4, 1.1, size) + 0.25 * liking),
            "brightness": random.beta(4, 3, size),
            "contrast": random.beta(5, 9, size) * 0.5,
            "entropy": 8 * random.beta(9, 1.8, size),
            "colourfulness": np.exp(random.normal(3.3, 0.6, size)),
        }
        error = pa.array(np.full(size, "cannot identify image file"), mask=~undecodable)
        spaces = pc.count_substring(pc.fill_null(alt_text, ""), " ")
        return pa.table(
            {
                "decode_error": error,
                **{
                    name: pa.array(values.astype(np.float32), mask=undecodable)
                    for name, values in scores.items()
                },
                "text_language": pa.array(language),
                "text_words": pc.add(spaces, 1).cast(pa.int32()),
                "text_characters": pc.fill_null(pc.utf8_length(alt_text), 0),
                "text_is_filename": pa.array(random.random(size) < 0.06),
            }
        )

    def _vectors(self, keys: pa.Array, rows: NDArray[np.int64]) -> None:
        """Embeddings, and fingerprints where asked for."""
        if width := self.shape.embedding_width:
            # A few hundred subjects, so that clusters of embeddings mean something.
            vectors = subjects(width)[self.random.integers(0, 300, len(keys))]
            vectors = vectors + self.random.normal(0, 0.7, vectors.shape)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            image = to_arrow(vectors.astype(np.float16), None, pa.list_(pa.float16()))
            columns = {"key": keys, "image": image, "text": pa.nulls(len(keys), image.type)}
            self.dataset.write_table("embeddings", pa.table(columns), self.name)
        if self.shape.fingerprints:
            table = fingerprint_rows(keys, rows, self.groups, self.random)
            self.dataset.write_table("fingerprints", table, self.name)

    def _pictures(
        self, keys: NDArray[np.str_], stored: NDArray[np.bool_], samples: pa.Table
    ) -> None:
        """The tar of the shard, and what a captioner said of some of its pictures."""
        from pipelines.world.render import render
        from pipelines.world.scene import WorldConfig, sample_scenes
        from pipelines.world.writers import write_descriptive

        world, seed = WorldConfig.small(), int(self.rows[0])
        scenes = sample_scenes(world, len(keys), seed)
        # A copy shows the picture of its group's first member.
        pixels = render([scenes[i] for i in self.place], world, SIDE)
        sides = zip(*(samples.column(n).to_pylist() for n in ("width", "height")), strict=True)
        members = []
        for row, (size, there) in enumerate(zip(sides, stored.tolist(), strict=True)):
            if there:
                picture = Image.fromarray(pixels[row])
                edit = 0 if self.groups.method[seed + row] == 0 else int(row - self.place[row])
                if edit:
                    picture = picture.point(lambda level, edit=edit: level * (0.8 + edit % 5 / 10))
                buffer = io.BytesIO()
                picture.resize(size).save(buffer, "JPEG", quality=88)
                members.append((str(keys[row]), {"jpg": buffer.getvalue()}))
        write_shard(self.dataset.shard_path(self.name), members)
        texts = write_descriptive(scenes, seed)
        rows = [
            dict.fromkeys(CAPTIONS.names)
            | {"key": keys[row], "kind": "descriptive", "sample_index": 0, "text": texts[row]}
            | {"raw_text": texts[row], "status": "ok", "flags": [], "engine": "generated"}
            | {"model": "generated", "words": len(texts[row].split())}
            for row in np.flatnonzero(stored)[::4]
        ]
        table = pa.Table.from_pylist(rows, schema=CAPTIONS)
        self.dataset.write_table("captions", table, self.name, "generated")


def subjects(width: int) -> NDArray[np.float64]:
    """(300, width): what the embeddings of all generated datasets lie around."""
    return np.random.default_rng(7).normal(0, 1, (300, width))


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(directory: Path, rows: int, seed: int) -> None:
    """Generate a dataset of ROWS rows in DIRECTORY."""
    generate(directory, Shape(rows=rows, seed=seed))
    click.echo(f"{rows:,} generated rows in {directory}")


if __name__ == "__main__":
    main()
