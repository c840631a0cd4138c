"""The stage that scores: one decode and one embedding a sample feed every column.

Per shard it writes three tables, one row a stored sample, in the order of the tar:

    scores        key, decode_error, and a column a score
    embeddings    image and text embedding, float16
    fingerprints  pixel hash, perceptual hashes, thumbnail

Each file's metadata holds, under `caplab_columns`, the signature of every column: a hash of its
scorer's version and settings, of its weights, and of what it rests on. A shard is done when the
signatures are those of the settings. Otherwise only the columns that are missing or differ are
computed: a new head reads the stored embeddings and never opens a picture.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.arrow_columns import to_arrow, to_numpy
from curate.dataset import Dataset
from curate.decode import PictureBatch, PictureView, decode_batches, empty_batch
from curate.errors import ConfigError, DatasetError
from curate.score_settings import ScoreSettings
from curate.scorers.clip import Clip
from curate.scorers.fingerprint import Fingerprint
from curate.scorers.heads import AestheticHead, NsfwHead
from curate.scorers.image_basics import ImageBasics
from curate.scorers.scorer import Column, Columns, Plan, Scorer, ScorerGraph
from curate.scorers.text_basics import TextBasics
from curate.shards import iter_shard
from curate.stage import Stage

__all__ = ["ScoreSettings", "ScoreStage", "make_scorers"]

_NOTE = b"caplab_columns"
_DECODE_ERROR = "decode_error"
# Where a column lies if not under its own name in `scores`.
_PLACE: Mapping[str, tuple[str, str]] = {
    "image_embedding": ("embeddings", "image"),
    "text_embedding": ("embeddings", "text"),
    "pixel_hash": ("fingerprints", "pixel_sha256"),
    "phash": ("fingerprints", "phash"),
    "thumbnail": ("fingerprints", "thumbnail"),
}
_TABLES = ("scores", "embeddings", "fingerprints")
# Types of columns with more than one number a row.
_TYPES: Mapping[str, pa.DataType] = {
    "image_embedding": pa.list_(pa.float16()),
    "text_embedding": pa.list_(pa.float16()),
    "phash": pa.list_(pa.uint64()),
    "thumbnail": pa.binary(),
}


def make_scorers(settings: ScoreSettings) -> list[Scorer]:
    """The scorers that the settings ask for.

    Raises:
        ConfigError: a model, tag or file that does not exist; before anything is read.
    """
    scorers: list[Scorer] = [
        Clip(
            settings.clip_model,
            settings.clip_pretrained,
            settings.clip_tokenizer,
            settings.precision,
            settings.device,
            settings.jpeg_draft,
        ),
        Fingerprint(),
        ImageBasics(),
        TextBasics(),
    ]
    if settings.aesthetic_head is not None:
        scorers.append(AestheticHead(settings.aesthetic_head))
    if settings.nsfw_head is not None:
        scorers.append(NsfwHead(settings.nsfw_head))
    return scorers


class ScoreStage(Stage):
    """Scores a shard's stored samples. See the module for what it writes.

    Cost a sample: one decode, one CLIP forward of picture and text, and below a millisecond for
    everything else. Memory: two decoded batches, and the columns of one shard.
    """

    name = "score"
    needs = ("samples",)
    adds = _TABLES

    def __init__(self, settings: ScoreSettings, extra: list[Scorer] | None = None) -> None:
        """Check the settings and the scorer graph.

        Args:
            extra: further scorers of one's own; their columns land in `scores`.

        Raises:
            ConfigError: see make_scorers and ScorerGraph.
        """
        self.settings = settings
        self.graph = ScorerGraph([*make_scorers(settings), *(extra or [])])
        self._opened: set[str] = set()

    def weights(self) -> dict[str, str]:
        """sha256 of every local weights file by name, for the provenance record."""
        hashes: dict[str, str] = {}
        for scorer in self.graph.scorers:
            if isinstance(scorer, Clip):
                hashes |= {f"clip/{name}": digest for name, digest in scorer.weights.items()}
            elif isinstance(scorer, AestheticHead | NsfwHead):
                hashes[f"{scorer.name}/{scorer.path.name}"] = scorer.sha256
        return hashes

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the tables hold every column, made by these settings and weights."""
        return not self.graph.plan(self._stored(dataset, shard)).run

    def open(self) -> None:
        """Load all weights, so that a mistake in them shows before the first shard.

        Raises:
            ConfigError: weights that do not load, or a head for embeddings of another width.
        """
        self._open(self.graph.scorers)
        width = self._clip().width
        for scorer in self.graph.scorers:
            if isinstance(scorer, AestheticHead | NsfwHead) and scorer.width != width:
                raise ConfigError(
                    f"The {scorer.name} head takes embeddings of {scorer.width} numbers, but this "
                    f"CLIP model gives {width}; choose the head trained on this model."
                )

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Compute what is missing of one shard.

        Returns:
            {"scored": n, "undecodable": n, "empty_text": n}.

        Raises:
            DatasetError: the tar and the samples table disagree.
        """
        self._limit_threads()
        stored = self._stored(dataset, shard)
        plan = self.graph.plan(stored)
        self._open(plan.run)
        texts = _alt_texts(dataset, shard)
        parts: dict[str, list[pa.Array]] = defaultdict(list)
        keys: list[str] = []
        for batch_keys, decoded, columns in self._batches(dataset, shard, plan, texts):
            keys += batch_keys
            for scorer in plan.run:
                columns |= scorer.score(columns)
            for scorer in plan.run:
                for name in scorer.adds:
                    known = decoded if self.graph.rests_on_picture(name) else None
                    parts[name].append(to_arrow(columns[name], known, _TYPES.get(name)))
            if plan.decodes:
                parts[_DECODE_ERROR].append(pa.array(columns[_DECODE_ERROR], pa.string()))
        if set(keys) != texts.keys() or len(keys) != len(texts):
            raise DatasetError(
                f"Shard {shard} of {dataset.directory} holds other samples than its samples "
                f"table; delete that table's shard and the tar, and curate again."
            )
        produced = {name: pa.chunked_array(chunks) for name, chunks in parts.items() if chunks}
        self._write(dataset, shard, keys, produced, stored)
        return self._counts(dataset, shard, texts)

    # ---- reading ------------------------------------------------------------------------------

    def _batches(
        self, dataset: Dataset, shard: str, plan: Plan, texts: Mapping[str, str | None]
    ) -> Iterator[tuple[list[str], np.ndarray[Any, Any] | None, Columns]]:
        """Keys, which rows decoded, and the input columns of each batch, in tar order."""
        size = self.settings.score_batch_size
        if plan.decodes:
            loaded = _Loaded(dataset, shard, plan.load)
            # A shard in which everything failed has no picture and still gets its empty tables.
            samples = iter_shard(dataset, shard) if texts else iter(())
            pictures = ((key, raw) for key, raw, _ in samples)
            view = self._clip().view if "picture" in plan.inputs else PictureView(1)
            batches = decode_batches(pictures, view, size, self.settings.decode_threads)
            for batch in batches if texts else [empty_batch(view)]:
                yield (
                    batch.keys,
                    batch.decoded,
                    {
                        **_inputs(batch),
                        **loaded.take(batch.keys),
                        "alt_text": _texts_of(batch.keys, texts, shard),
                    },
                )
            return
        loaded = _Loaded(dataset, shard, plan.load)
        errors = dataset.read_table("scores", shard, columns=["key", _DECODE_ERROR])
        keys = errors.column("key").to_pylist()
        decoded = errors.column(_DECODE_ERROR).is_null().to_numpy()
        for start in range(0, max(len(keys), 1), size):
            some = keys[start : start + size]
            yield (
                some,
                decoded[start : start + size],
                {
                    **loaded.take(some),
                    "alt_text": _texts_of(some, texts, shard),
                },
            )

    def _stored(self, dataset: Dataset, shard: str) -> dict[str, str]:
        """Column -> signature of what the tables hold; nothing unless all three tables do."""
        if not all(dataset.has_shard(table, shard) for table in _TABLES):
            return {}
        signatures: dict[str, str] = {}
        for table in _TABLES:
            notes = pq.read_schema(dataset.table_path(table, shard)).metadata or {}
            signatures |= json.loads(notes.get(_NOTE, b"{}"))
        return signatures

    # ---- writing ------------------------------------------------------------------------------

    def _write(
        self,
        dataset: Dataset,
        shard: str,
        keys: list[str],
        produced: Mapping[str, pa.ChunkedArray],
        stored: Mapping[str, str],
    ) -> None:
        for table in _TABLES:
            mine = {
                column: array
                for name, array in produced.items()
                for place, column in [_PLACE.get(name, ("scores", name))]
                if place == table
            }
            if not mine and dataset.has_shard(table, shard):
                continue
            old = dataset.read_table(table, shard) if stored else None
            columns: dict[str, Any] = {"key": pa.array(keys, pa.string())}
            if table == "scores":
                columns[_DECODE_ERROR] = pa.nulls(len(keys), pa.string())
            if old is not None:
                order = {key: row for row, key in enumerate(old.column("key").to_pylist())}
                columns |= _columns_of(old.take(pa.array([order[key] for key in keys], pa.int64())))
                columns["key"] = pa.array(keys, pa.string())
            columns |= mine
            marks = {
                name: self.graph.signatures.get(name, stored.get(name))
                for name in {*stored, *produced} - {_DECODE_ERROR}
                if _PLACE.get(name, ("scores", name))[0] == table
            }
            note = {_NOTE: json.dumps(marks, sort_keys=True).encode()}
            dataset.write_table(table, pa.table(columns).replace_schema_metadata(note), shard)

    def _counts(
        self, dataset: Dataset, shard: str, texts: Mapping[str, str | None]
    ) -> dict[str, int]:
        errors = dataset.read_table("scores", shard, columns=[_DECODE_ERROR]).column(0)
        counts = Counter(scored=len(errors), undecodable=len(errors) - errors.null_count)
        counts["empty_text"] = sum(not (text or "").strip() for text in texts.values())
        return dict(counts)

    # ---- models -------------------------------------------------------------------------------

    def _clip(self) -> Clip:
        return next(scorer for scorer in self.graph.scorers if isinstance(scorer, Clip))

    def _open(self, scorers: Any) -> None:
        for scorer in scorers:
            if scorer.name not in self._opened:
                scorer.open()
                self._opened.add(scorer.name)

    def _limit_threads(self) -> None:
        import torch

        torch.set_num_threads(self.settings.score_threads)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": set()}


class _Loaded:
    """Stored columns of a shard, by key."""

    def __init__(self, dataset: Dataset, shard: str, names: frozenset[str]) -> None:
        self._columns: dict[str, Column] = {}
        self._rows: dict[str, int] = {}
        for name in sorted(names):
            table, column = _PLACE.get(name, ("scores", name))
            stored = dataset.read_table(table, shard, columns=["key", column])
            self._rows = {key: row for row, key in enumerate(stored.column("key").to_pylist())}
            self._columns[name] = to_numpy(stored.column(column))

    def take(self, keys: list[str]) -> Columns:
        rows = [self._rows[key] for key in keys] if self._columns else []
        return {name: column[rows] for name, column in self._columns.items()}


def _inputs(batch: PictureBatch) -> Columns:
    return {
        "picture": batch.picture,
        "canvas": batch.canvas,
        "grey": batch.grey,
        "size": batch.size,
        "pixel_sha256": batch.pixel_sha256,
        _DECODE_ERROR: batch.error,
    }


def _alt_texts(dataset: Dataset, shard: str) -> dict[str, str | None]:
    table = dataset.read_table("samples", shard, columns=["key", "alt_text", "status"])
    stored = table.filter(pc.equal(table.column("status"), "stored"))
    return dict(
        zip(
            stored.column("key").to_pylist(),
            stored.column("alt_text").to_pylist(),
            strict=True,
        )
    )


def _texts_of(keys: list[str], texts: Mapping[str, str | None], shard: str) -> list[str | None]:
    try:
        return [texts[key] for key in keys]
    except KeyError as error:
        raise DatasetError(
            f"Shard {shard} holds the sample {error}, which its samples table does not call stored."
        ) from error


def _columns_of(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: table.column(name) for name in table.column_names}
