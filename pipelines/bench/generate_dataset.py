"""A generated dataset of any size: plausible tables, a few thousand real little pictures.

    python -m pipelines.bench.generate_dataset DIR --rows 1000000

Nothing is downloaded, decoded or scored: scores, hosts, failures, languages and duplicates are
drawn at random with the shapes and correlations that web data has, so that selecting and reporting
can be tried at a size that the pictures of no test machine allow. A million rows take about half a
minute. Only the first shards, small ones, have tars: what shows pictures shows theirs.

The same settings give the same bytes of every table.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.base.files import atomic_path
from curate.base.provenance import package_versions
from curate.store.dataset import CAPTIONS, SAMPLES, Dataset
from pipelines.bench.generated_duplicates import PICTURE_ROWS, Groups, group_rows, write_duplicates
from pipelines.bench.generated_web import Web

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
    identity = {"generated": 1, **shape.__dict__}
    dataset = Dataset.create(directory, identity, _record())
    if dataset.has_shard("duplicates"):
        return dataset
    random = np.random.default_rng(shape.seed)
    web = Web(random, hosts=max(40, shape.rows // 50))
    groups = group_rows(shape.rows, shape.picture_shards * PICTURE_ROWS, random)
    keys, ranks = [], []
    for name, start, size in shape.shards():
        shard = _Shard(dataset, name, start, size, np.random.default_rng([shape.seed, start]))
        picture = int(name) < shape.picture_shards
        keys.append(shard.write(web, groups, picture, shape.embedding_width))
        ranks.append(shard.quality)
    write_duplicates(dataset, groups, np.concatenate(keys), np.concatenate(ranks))
    return dataset


def _record() -> dict[str, Any]:
    return {
        "settings": {"clip_model": "ViT-L-14-quickgelu", "clip_pretrained": "openai"},
        "versions": package_versions(),
        "weights": {},
        "created_at": "2026-01-01T00:00:00+00:00",
    }


class _Shard:
    """Draws and writes one shard's tables."""

    def __init__(
        self, dataset: Dataset, name: str, start: int, size: int, random: np.random.Generator
    ) -> None:
        self.dataset, self.name, self.random = dataset, name, random
        self.rows = np.arange(start, start + size)
        self.quality = np.zeros(size)

    def write(self, web: Web, groups: Groups, pictures: bool, width: int) -> NDArray[np.bytes_]:
        """(size,) keys of all rows, empty where the row failed."""
        random, size = self.random, len(self.rows)
        digits = random.bytes(16 * size).hex()
        keys = np.array([digits[32 * i : 32 * i + 32] for i in range(size)])
        host = web.draw_hosts(random, size)
        language, alt_text = web.texts(random, size)
        failed = random.random(size) < np.where(web.dead[host], 1.0, web.failure[host])
        reason, detail = self._reasons(failed, web.dead[host])
        stored = ~failed
        long_side = np.exp(random.normal(6.6, 0.55, size)).clip(120, 6000)
        aspect = np.exp(np.abs(random.normal(0.2, 0.28, size))).clip(1, 3)
        tall = random.random(size) < 0.3
        short_side = long_side / aspect
        equal = self._equal_to(groups)
        long_side, short_side, tall = long_side[equal], short_side[equal], tall[equal]
        original = [np.where(tall, short_side, long_side), np.where(tall, long_side, short_side)]
        scale = np.minimum(1, 512 / short_side)
        bytes_ = (long_side * short_side * random.uniform(0.08, 0.35, size)).astype(np.int64)
        formats = random.choice(["jpeg", "jpeg", "jpeg", "png", "webp"], size)
        self.quality = np.where(stored, original[0] * original[1], -1.0)

        def known(values: Any, kind: pa.DataType) -> pa.Array:
            return pa.array(values, mask=failed).cast(kind, safe=False)

        if pictures:
            scale = SIDE / np.maximum(*original)
        samples = {
            "key": pa.array(keys),
            "shard": pa.array(np.full(size, self.name)),
            "row": pa.array(self.rows),
            "url": web.urls(host, self.rows),
            "alt_text": alt_text,
            "status": pa.array(np.where(failed, "failed", "stored")),
            "reason": reason,
            "detail": detail,
            "original_width": known(original[0], pa.int32()),
            "original_height": known(original[1], pa.int32()),
            "original_format": known(formats, pa.string()),
            "original_bytes": known(bytes_, pa.int64()),
            "width": known(np.maximum(original[0] * scale, 1), pa.int32()),
            "height": known(np.maximum(original[1] * scale, 1), pa.int32()),
            "format": known(np.full(size, "jpg"), pa.string()),
            "sha256": known(np.array([key * 2 for key in keys]), pa.string()),
        }
        table = pa.table(samples, schema=SAMPLES)
        self.dataset.write_table("samples", table, self.name)
        self._input(table)
        scores = self._scores(language, alt_text, web.quality[host], original, stored)
        self.dataset.write_table(
            "scores",
            scores.append_column("key", pa.array(keys))
            .select(["key", *scores.column_names])
            .filter(pa.array(stored)),
            self.name,
        )
        if width:
            self._embeddings(keys[stored], width)
        if pictures:
            self._pictures(keys, stored, groups, table)
        return np.where(stored, keys, "").astype("S32")

    def _equal_to(self, groups: Groups) -> NDArray[np.int64]:
        """(size,) the row of this shard that each row is an exact copy of, or the row itself."""
        own = np.arange(len(self.rows))
        first = groups.first[self.rows] - self.rows[0]
        here = (groups.method[self.rows] == 0) & (first >= 0) & (first < len(own))
        return np.where(here, first, own)

    def _reasons(self, failed: NDArray[np.bool_], dead: NDArray[np.bool_]) -> tuple[Any, Any]:
        names = np.array([name for name, _, _ in _FAILURES])
        details = np.array([detail for _, _, detail in _FAILURES])
        share = np.array([share for _, share, _ in _FAILURES])
        drawn = self.random.choice(len(names), len(failed), p=share / share.sum())
        drawn[dead] = 0
        return pa.array(names[drawn], mask=~failed), pa.array(details[drawn], mask=~failed)

    def _input(self, samples: pa.Table) -> None:
        with atomic_path(self.dataset.input_path(self.name)) as temporary:
            pq.write_table(samples.select(["key", "url", "alt_text"]), temporary)

    def _scores(
        self,
        language: NDArray[np.str_],
        alt_text: pa.Array,
        liking: NDArray[np.float64],
        original: list[NDArray[np.float64]],
        stored: NDArray[np.bool_],
    ) -> pa.Table:
        random, size = self.random, len(stored)
        fits = random.random(size) < 0.68
        common = random.normal(0, 1, size)
        english = language == "en"
        b32 = np.where(fits, 0.29, 0.19) - 0.02 * ~english + 0.035 * common
        b32 += random.normal(0, 0.015, size)
        l14 = np.where(fits, 0.235, 0.13) - 0.02 * ~english + 0.038 * common
        l14 += random.normal(0, 0.018, size)
        area = np.log(original[0] * original[1])
        looks = 4.9 + 0.35 * (area - 13) / 1.1 + 0.5 * liking + random.normal(0, 0.62, size)
        words = pc.add(pc.count_substring(pc.fill_null(alt_text, ""), " "), 1)
        undecodable = random.random(size) < 0.001
        null = undecodable

        def score(values: NDArray[Any]) -> pa.Array:
            return pa.array(np.asarray(values, np.float32), mask=null)

        unsafe = np.where(
            random.random(size) < 0.03, random.beta(6, 2, size), random.beta(0.35, 9, size)
        )
        marked = np.where(
            random.random(size) < 0.12, random.beta(5, 1.5, size), random.beta(0.6, 5, size)
        )
        return pa.table(
            {
                "decode_error": pa.array(np.full(size, "cannot identify image file"), mask=~null),
                "clip_similarity": score(l14),
                "clip_similarity_b32": score(b32),
                "aesthetic": score(looks),
                "nsfw": score(unsafe),
                "watermark": score(marked),
                "aspect_ratio": score(np.maximum(*original) / np.minimum(*original)),
                "blur": score(np.exp(random.normal(5.4, 1.1, size) + 0.25 * liking)),
                "brightness": score(random.beta(4, 3, size)),
                "contrast": score(random.beta(5, 9, size) * 0.5),
                "entropy": score(8 * random.beta(9, 1.8, size)),
                "colourfulness": score(np.exp(random.normal(3.3, 0.6, size))),
                "text_language": pa.array(language),
                "text_words": words.cast(pa.int32()),
                "text_characters": pc.fill_null(pc.utf8_length(alt_text), 0),
                "text_is_filename": pa.array(random.random(size) < 0.06),
            }
        )

    def _embeddings(self, keys: NDArray[np.str_], width: int) -> None:
        # A few hundred subjects, so that clusters of embeddings mean something.
        centres = np.random.default_rng(7).normal(0, 1, (300, width))
        vectors = centres[self.random.integers(0, 300, len(keys))]
        vectors = vectors + self.random.normal(0, 0.7, vectors.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        offsets = pa.array(np.arange(0, width * len(keys) + 1, width, dtype=np.int32))
        image = pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float16).ravel()))
        table = pa.table(
            [pa.array(keys), image, pa.nulls(len(keys), image.type)], names=["key", "image", "text"]
        )
        self.dataset.write_table("embeddings", table, self.name)

    def _pictures(
        self, keys: NDArray[np.str_], stored: NDArray[np.bool_], groups: Groups, samples: pa.Table
    ) -> None:
        """The tar of the shard, and what a captioner said of some of its pictures."""
        from PIL import Image

        from pipelines.world.render import render
        from pipelines.world.scene import WorldConfig, sample_scenes
        from pipelines.world.writers import write_descriptive

        world = WorldConfig.small()
        scenes = sample_scenes(world, len(keys), int(self.rows[0]))
        # A copy shows the picture of its group's first member.
        first = groups.first[self.rows] - self.rows[0]
        place = np.where((first >= 0) & (first < len(keys)), first, np.arange(len(keys)))
        pixels = render([scenes[i] for i in place], world, SIDE)
        width, height = (samples.column(n).fill_null(1).to_numpy() for n in ("width", "height"))
        with (
            atomic_path(self.dataset.shard_path(self.name)) as temporary,
            tarfile.open(temporary, "w") as archive,
        ):
            for row in np.flatnonzero(stored):
                picture = Image.fromarray(pixels[row])
                edit = 0 if groups.method[self.rows[row]] == 0 else row - place[row]
                if edit:
                    picture = picture.point(lambda level, edit=edit: level * (0.8 + edit % 5 / 10))
                buffer = io.BytesIO()
                picture.resize((int(width[row]), int(height[row]))).save(buffer, "JPEG", quality=88)
                member = tarfile.TarInfo(f"{keys[row]}.jpg")
                member.size = buffer.tell()
                archive.addfile(member, io.BytesIO(buffer.getvalue()))
        texts = write_descriptive(scenes, int(self.rows[0]))
        rows = [
            dict.fromkeys(CAPTIONS.names)
            | {"key": keys[row], "kind": "descriptive", "sample_index": 0, "text": texts[row]}
            | {"raw_text": texts[row], "status": "ok", "flags": [], "engine": "generated"}
            | {"model": "generated", "words": len(texts[row].split())}
            for row in np.flatnonzero(stored)[::4]
        ]
        table = pa.Table.from_pylist(rows, schema=CAPTIONS)
        self.dataset.write_table("captions", table, self.name, "generated")


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
