"""The stage that scores: one decode and one embedding a sample feed every column.

Per shard it writes three tables, one row a stored sample, in the order of the tar:

    scores        key, decode_error, and a column a score
    embeddings    image and text embedding, float16
    fingerprints  pixel hash, perceptual hashes, copy descriptor, thumbnail

Each file's metadata holds the signature of every column (curate.base.column_marks): a hash of its
scorer's version and settings, of its weights, and of what it rests on. A shard is done when the
signatures are those of the settings and every stored sample has its row. Otherwise only what is
missing is computed: a new head reads the stored embeddings and never opens a picture; a sample that
a retry stored later is decoded alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.arrow_columns import merged, to_arrow
from curate.base.column_marks import note, noted_in
from curate.base.errors import ConfigError, DatasetError
from curate.base.progress import advance
from curate.base.settings import precision_of
from curate.base.threads import in_threads
from curate.pictures.decode import PictureBatch, PictureView, decode_batch, decode_batches
from curate.scoring.models.ask import Ask
from curate.scoring.score_tables import (
    DECODE_ERROR,
    TABLES,
    StoredColumns,
    alt_texts,
    keyed,
    lies_in,
    place_of,
    row_count,
    scored_keys,
    type_of,
)
from curate.scoring.scored_with import MODELS, similarity_models
from curate.scoring.scorers.clip import Clip, opening_of
from curate.scoring.scorers.head_source import HeadScorer
from curate.scoring.scorers.make import make_scorers
from curate.scoring.scorers.scorer import Columns, Plan, Scorer, ScorerGraph
from curate.scoring.settings import ScoreSettings
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from curate.store.stage import Stage

__all__ = ["ScoreSettings", "ScoreStage", "make_scorers"]


@dataclass(frozen=True)
class _Stored:
    """A batch of samples whose columns are computed from stored ones."""

    keys: list[str]
    decoded: NDArray[np.bool_]


_Batch = list[tuple[str, bytes]] | PictureBatch | _Stored
"""Encoded pictures by key, decoded ones, or none at all."""

_Computed = tuple[list[str], dict[str, pa.ChunkedArray]]
"""Keys, and columns of as many rows."""


class ScoreStage(Stage):
    """Scores a shard's stored samples. See the module for what it writes.

    Cost a sample: one decode, one CLIP forward of picture and text, and below a millisecond for
    everything else. Memory: a decoded batch a thread and one ahead, and the columns of one shard.
    """

    name = "score"
    needs = ("samples",)
    adds = TABLES

    def __init__(
        self,
        settings: ScoreSettings,
        extra: list[Scorer] | None = None,
        retry_failed: bool = False,
    ) -> None:
        """Check the settings and the scorer graph.

        Args:
            extra: further scorers of one's own; their columns land in `scores`.
            retry_failed: compute again what has no value and says why in `NAME_error`.

        Raises:
            ConfigError: see make_scorers and ScorerGraph.
        """
        # Auto is resolved once and stored, so that a later run on another machine keeps it.
        wanted = ("precision", "ask_precision") if settings.ask else ("precision",)
        kept: dict[str, Any] = {
            name: precision_of(getattr(settings, name), settings.device) for name in wanted
        }
        scorers = make_scorers(settings.model_copy(update=kept))
        # So is a server's only model, so that a later run need not ask a server that is gone.
        if served := [one.served_model for one in scorers if isinstance(one, Ask)]:
            kept["ask_served_model"] = served[0]
        self.settings = settings.model_copy(update=kept)
        self.graph = ScorerGraph([*scorers, *(extra or [])])
        self._retry_failed = retry_failed
        self._opened: set[str] = set()

    def weights(self) -> dict[str, str]:
        """sha256 of every local weights file by name, for the provenance record."""
        return {
            f"{scorer.name}/{name}": digest
            for scorer in self.graph.scorers
            for name, digest in scorer.hashes().items()
        }

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the tables hold every column of every sample, made by these settings."""
        stored = self._stored(dataset, shard)
        if self.graph.plan(stored).run or any(self._failed(dataset, shard, stored)):
            return False
        return scored_keys(dataset, shard).keys() == alt_texts(dataset, shard).keys()

    @property
    def opening(self) -> str:
        return opening_of(self.graph.scorers)

    def open(self) -> None:
        """Load all weights, so that a mistake in them shows before the first shard.

        Raises:
            ConfigError: weights that do not load, or a head for embeddings of another width.
        """
        self._open(scorer for scorer in self.graph.scorers if not scorer.late)
        for scorer in self.graph.scorers:
            if isinstance(scorer, HeadScorer):
                clip, takes = self.graph.producer[scorer.needs[0]], scorer.model.width
                width = clip.width if isinstance(clip, Clip) else takes
                if takes != width:
                    raise ConfigError(
                        f"The {scorer.name} head takes embeddings of {takes} numbers, but "
                        f"this CLIP model gives {width}; choose the head trained on this model."
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
        texts = alt_texts(dataset, shard)
        scored = scored_keys(dataset, shard) if stored else {}
        old = {key: text for key, text in texts.items() if key in scored}
        new = {key: text for key, text in texts.items() if key not in scored}
        done = []
        missing = self.graph.plan(stored)
        if missing.run and (old or not new):
            done.append(self._compute(dataset, shard, missing, old, texts, scored))
        for plan, keys in self._failed(dataset, shard, stored):
            failed = {key: text for key, text in old.items() if key in keys}
            done.append(self._compute(dataset, shard, plan, failed, texts, scored))
        if new:
            done.append(self._compute(dataset, shard, self.graph.plan({}), new, texts, scored))
        self._write(dataset, shard, list(texts), done, stored)
        return self._counts(dataset, shard, texts)

    def _failed(
        self, dataset: Dataset, shard: str, stored: Mapping[str, str]
    ) -> Iterator[tuple[Plan, set[str]]]:
        """For each scorer that is to be tried again: what to run, and the rows that it owes."""
        for scorer in self.graph.scorers if self._retry_failed else ():
            error = getattr(scorer, "error", None)
            if error is None or stored.get(error) != self.graph.signatures[error]:
                continue
            rows = dataset.read_table("scores", shard, columns=["key", error])
            told = rows.column(error)
            if keys := set(rows.column("key").filter(told.is_valid()).to_pylist()):
                again = self.graph.resting_on(scorer)
                yield self.graph.plan({n: m for n, m in stored.items() if n not in again}), keys

    def _compute(
        self,
        dataset: Dataset,
        shard: str,
        plan: Plan,
        texts: Mapping[str, str | None],
        known: Mapping[str, str | None],
        scored: Mapping[str, str | None],
    ) -> _Computed:
        """The plan's columns for the samples of `texts`, which are some of `known`, the stored."""
        self._open(plan.run)
        parts: dict[str, list[pa.Array]] = defaultdict(list)
        keys: list[str] = []
        loaded = StoredColumns(dataset, shard, plan.load)

        def scored_batch(batch: _Batch) -> tuple[list[str], dict[str, pa.Array]]:
            return self._score_batch(batch, plan, texts, loaded, shard)

        batches = self._batches(dataset, shard, plan, texts, known, scored)
        threads = self.settings.score_threads
        for batch_keys, arrays in in_threads(scored_batch, batches, threads):
            keys += batch_keys
            advance(len(batch_keys))
            for name, array in arrays.items():
                parts[name].append(array)
        if set(keys) != texts.keys() or len(keys) != len(texts):
            raise DatasetError(
                f"Shard {shard} of {dataset.directory} holds other samples than its samples "
                f"table; `caplab check {dataset.directory} --repair` stores it again."
            )
        return keys, {name: pa.chunked_array(chunks) for name, chunks in parts.items() if chunks}

    # ---- reading ------------------------------------------------------------------------------

    def _batches(
        self,
        dataset: Dataset,
        shard: str,
        plan: Plan,
        texts: Mapping[str, str | None],
        known: Mapping[str, str | None],
        scored: Mapping[str, str | None],
    ) -> Iterator[_Batch]:
        """Batches in tar order, as far as the reading thread takes them."""
        size = self.settings.score_batch_size
        if not plan.decodes:
            keys = [key for key in scored if key in texts]
            for start in range(0, max(len(keys), 1), size):
                some = keys[start : start + size]
                yield _Stored(some, np.array([scored[key] is None for key in some], bool))
            return
        # A shard in which everything failed has no picture and still gets its empty tables.
        samples = iter_shard(dataset, shard) if texts else iter(())
        pictures = ((k, raw) for k, raw, _ in samples if k in texts or k not in known)
        threads = self.settings.decode_threads
        if threads > 1 and texts:
            view, *more = _wanted_views(plan)
            yield from decode_batches(pictures, view, size, threads, more)
            return
        if not texts:
            yield []
        while batch := list(islice(pictures, size)):
            yield batch

    def _score_batch(
        self,
        batch: _Batch,
        plan: Plan,
        texts: Mapping[str, str | None],
        loaded: StoredColumns,
        shard: str,
    ) -> tuple[list[str], dict[str, pa.Array]]:
        """Keys and the plan's columns of one batch; decodes it where nobody did yet."""
        if isinstance(batch, list):
            view, *more = _wanted_views(plan)
            batch = decode_batch(batch, view, more)
        columns: Columns = {
            **loaded.take(batch.keys),
            "alt_text": _texts_of(batch.keys, texts, shard),
        }
        arrays: dict[str, pa.Array] = {}
        if isinstance(batch, PictureBatch):
            seen = dict(zip(_wanted_views(plan), (batch.picture, *batch.views), strict=True))
            columns |= {name: seen[view] for name, view in plan.views().items()}
            columns |= _inputs(batch)
            arrays[DECODE_ERROR] = pa.array(batch.error, pa.string())
        for scorer in plan.run:
            columns |= scorer.score(columns)
        for scorer in plan.run:
            for name in scorer.adds:
                known = batch.decoded if self.graph.rests_on_picture(name) else None
                arrays[name] = to_arrow(columns[name], known, type_of(name))
        return batch.keys, arrays

    def _stored(self, dataset: Dataset, shard: str) -> dict[str, str]:
        """Column -> signature of what the tables hold; nothing unless all three tables do."""
        if not all(dataset.has_shard(table, shard) for table in TABLES):
            return {}
        signatures: dict[str, str] = {}
        for table in TABLES:
            signatures |= noted_in(dataset.table_path(table, shard))
        return signatures

    # ---- writing ------------------------------------------------------------------------------

    def _write(
        self,
        dataset: Dataset,
        shard: str,
        keys: list[str],
        done: Sequence[_Computed],
        stored: Mapping[str, str],
    ) -> None:
        """Write the tables that change: what was stored, with `done` over and behind it."""
        added = any(not (set(some) <= scored_keys(dataset, shard).keys()) for some, _ in done)
        for table in TABLES:
            pieces = [keyed(some, columns, table) for some, columns in done]
            gone = not added and row_count(dataset, table, shard) != len(keys)
            changed = added or gone or any(piece.num_columns > 1 for piece in pieces)
            if not changed and dataset.has_shard(table, shard):
                continue
            if stored:
                pieces.insert(0, dataset.read_table(table, shard).replace_schema_metadata(None))
            rows = merged(pieces, keys)
            if table == "scores" and DECODE_ERROR not in rows.column_names:
                rows = rows.append_column(DECODE_ERROR, pa.nulls(len(keys), pa.string()))
            graph = self.graph.signatures
            rows = rows.select(self._order(table, rows.column_names))
            # A column that is nobody's now lacks the added samples, so it is complete no more.
            left = {} if added else {n: mark for n, mark in stored.items() if n not in graph}
            marks = {name: mark for name, mark in {**left, **graph}.items() if lies_in(table, name)}
            notes = note(marks)
            if table == "scores":
                before = noted_in(dataset.table_path(table, shard), MODELS) if stored else {}
                notes |= note({**before, **similarity_models(self.graph.scorers)}, MODELS)
            dataset.write_table(table, rows.replace_schema_metadata(notes), shard)

    def _order(self, table: str, names: list[str]) -> list[str]:
        """The table's columns in the graph's order, however they came to be."""
        graph = [place_of(name)[1] for name in self.graph.signatures if lies_in(table, name)]
        first = [name for name in ("key", DECODE_ERROR, *graph) if name in names]
        return [*first, *sorted(set(names) - set(first))]

    def _counts(
        self, dataset: Dataset, shard: str, texts: Mapping[str, str | None]
    ) -> dict[str, int]:
        own = [name for one in self.graph.scorers if (name := getattr(one, "error", None))]
        columns = [DECODE_ERROR, *own]
        rows = dataset.read_table("scores", shard, columns=columns)
        failed = [rows.num_rows - rows.column(name).null_count for name in columns]
        counts = {"scored": rows.num_rows, "undecodable": failed[0]}
        counts["empty_text"] = sum(not (text or "").strip() for text in texts.values())
        return counts | {name: count for name, count in zip(own, failed[1:], strict=True) if count}

    # ---- models -------------------------------------------------------------------------------

    def _open(self, scorers: Any) -> None:
        for scorer in scorers:
            if scorer.name not in self._opened:
                scorer.open()
                self._opened.add(scorer.name)

    def _limit_threads(self) -> None:
        import torch

        # Threads score whole batches side by side: nobody waits for the others inside a product.
        torch.set_num_threads(1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": set()}


def _wanted_views(plan: Plan) -> list[PictureView]:
    """The different views that the plan's scorers want; a pixel where none wants any."""
    return list(dict.fromkeys(plan.views().values())) or [PictureView(1)]


def _inputs(batch: PictureBatch) -> Columns:
    return {
        "canvas": batch.canvas,
        "grey": batch.grey,
        "size": batch.size,
        "pixel_sha256": batch.pixel_sha256,
    }


def _texts_of(keys: list[str], texts: Mapping[str, str | None], shard: str) -> list[str | None]:
    try:
        return [texts[key] for key in keys]
    except KeyError as error:
        raise DatasetError(
            f"Shard {shard} holds the sample {error}, which its samples table does not call stored."
        ) from error
