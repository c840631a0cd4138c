"""How well each stored caption fits its picture, sentence by sentence.

    caption_scores/SOURCE   one row a scored caption, by key, kind, source and sample_index:

    clip_similarity         cosine of picture and caption, as far as the model's context holds it
    clip_truncated_tokens   tokens of the caption behind the end of that context; 0 where it fits
    clip_sentences          sentences; one too long for the context counts once a piece
    clip_sentence_mean, clip_sentence_min, clip_sentence_max
                            cosines of picture and single sentence: nothing is truncated there

CLIP reads 77 tokens, a descriptive caption has 100 to 300: its similarity as a whole judges the
first third. The least sentence finds the one that tells of something else. Of a further CLIP model
(`--more-clips`) all columns come again with its label behind the name.

The picture's embedding is the stored one, so no picture is opened. A caption that is scored already
(same text, same model) is not scored again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.arrow_columns import merged, to_arrow, to_numpy
from curate.base.column_marks import note, noted_in
from curate.base.errors import ConfigError, DatasetError
from curate.base.files import sha256_file
from curate.base.progress import advance
from curate.base.settings import nearest
from curate.scoring.scorers.clip import Clip, opening_of
from curate.scoring.scorers.clip_tokens import truncated_tokens
from curate.scoring.scorers.scorer import ScorerGraph
from curate.scoring.scorers.sentences import fitting, sentences
from curate.scoring.settings import ScoreSettings
from curate.store.captions import SCORED_CAPTION, text_mark
from curate.store.dataset import Dataset
from curate.store.stage import Stage

if TYPE_CHECKING:
    pass

ALL = "all"
COLUMNS = (
    "clip_similarity",
    "clip_truncated_tokens",
    "clip_sentences",
    "clip_sentence_mean",
    "clip_sentence_min",
    "clip_sentence_max",
)
_VERSION = 1
_COUNTS = frozenset({"clip_truncated_tokens", "clip_sentences"})


class CaptionScoreStage(Stage):
    """Scores the accepted captions of some kinds.

    Cost a caption: one forward of the text tower for the whole and one a sentence. Memory: the
    embeddings and captions of one shard.
    """

    name = "caption_score"
    needs = ("embeddings", "captions")
    adds = ("caption_scores",)

    def __init__(self, settings: ScoreSettings, kinds: Sequence[str]) -> None:
        """Check the CLIP models.

        Args:
            kinds: caption kinds, or ("all",).

        Raises:
            ConfigError: as for Clip.
        """
        self.settings, self.kinds = settings, tuple(kinds)
        self.clips = Clip.of(settings)

    def check(self, dataset: Dataset) -> None:
        """Raise ConfigError for a kind that nobody wrote."""
        connection = dataset.connect()
        rows = connection.execute("SELECT DISTINCT kind FROM captions ORDER BY 1").fetchall()
        written = [str(kind) for (kind,) in rows]
        for kind in self.kinds:
            if kind != ALL and kind not in written:
                raise ConfigError(
                    f"Nobody wrote {kind!r} captions of {dataset.directory}; "
                    f"{nearest(kind, written)}"
                )

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether every caption of these kinds is scored by these models."""
        return all(
            _note_of(dataset, shard, source) == self._wanted(dataset, shard, source)
            for source in _sources(dataset, shard)
        )

    @property
    def opening(self) -> str:
        return opening_of(self.clips)

    def open(self) -> None:
        for clip in self.clips:
            clip.open()

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Score one shard; counters "captions" and "reused".

        Raises:
            DatasetError: the pictures' embeddings are missing or of other models.
        """
        import torch

        torch.set_num_threads(self.settings.score_threads)
        counts: Counter[str] = Counter()
        sources = _sources(dataset, shard)
        for source in sources:
            wanted = self._wanted(dataset, shard, source)
            if _note_of(dataset, shard, source) == wanted:
                continue
            captions = self._captions(dataset, shard, source)
            old = self._reusable(dataset, shard, source)
            table = captions.drop_columns(["text", "row_key"])
            shown = 1 / max(1, len(sources) * len(self.clips))
            for clip in self.clips:
                kept = old.get(clip.suffix)
                columns, reused = self._scored(dataset, shard, clip, captions, kept, shown)
                for name, column in columns.items():
                    table = table.append_column(name, column)
                counts["reused"] += reused
            counts["captions"] += len(captions)
            rows = table.replace_schema_metadata(note(wanted))
            dataset.write_table("caption_scores", rows, shard, source)
        return dict(counts)

    # ---- what is there --------------------------------------------------------------------------

    def _wanted(self, dataset: Dataset, shard: str, source: str) -> dict[str, Any]:
        path = dataset.table_path("captions", shard, source)
        return {
            "version": _VERSION,
            "kinds": sorted(self.kinds),
            "captions": sha256_file(path),
            "models": {clip.suffix: _mark(clip) for clip in self.clips},
        }

    def _captions(self, dataset: Dataset, shard: str, source: str) -> pa.Table:
        """Accepted captions: the identity of each, its text, and `row_key` to merge by."""
        columns = ["key", "kind", "sample_index", "text", "status"]
        table = dataset.read_table("captions", shard, source, columns)
        wanted = pc.equal(table.column("status"), "ok")
        if ALL not in self.kinds:
            kinds = pa.array(sorted(self.kinds), pa.string())
            wanted = pc.and_(wanted, pc.is_in(table.column("kind"), kinds))
        table = table.filter(wanted).drop_columns(["status"])
        texts = table.column("text").to_pylist()
        marks = [text_mark(text) for text in texts]
        table = table.append_column("source", pa.array([source] * len(table), pa.string()))
        table = table.append_column("text_sha256", pa.array(marks, pa.string()))
        return table.append_column("row_key", _row_keys(table)).select(
            [*SCORED_CAPTION, "text", "row_key"]
        )

    def _reusable(self, dataset: Dataset, shard: str, source: str) -> dict[str, pa.Table]:
        """Suffix -> rows that were scored by the same model before, with `row_key`."""
        before = _note_of(dataset, shard, source)
        if before.get("version") != _VERSION:
            return {}
        table = dataset.read_table("caption_scores", shard, source)
        table = table.append_column("row_key", _row_keys(table))
        return {
            clip.suffix: table
            for clip in self.clips
            if before["models"].get(clip.suffix) == _mark(clip)
        }

    # ---- scoring --------------------------------------------------------------------------------

    def _scored(
        self,
        dataset: Dataset,
        shard: str,
        clip: Clip,
        captions: pa.Table,
        old: pa.Table | None,
        shown: float,
    ) -> tuple[dict[str, pa.ChunkedArray], int]:
        """This model's columns for every row of `captions`, and how many were reused.

        Args:
            shown: part of the shard's samples that the bar shows for all of them.
        """
        row_keys = captions.column("row_key").to_pylist()
        names = [f"{name}{clip.suffix}" for name in COLUMNS]
        known = set(old.column("row_key").to_pylist()) if old is not None else set()
        new = [row for row, row_key in enumerate(row_keys) if row_key not in known]
        rows, pictures = picture_embeddings(dataset, shard, clip)
        keys, texts = captions.column("key").to_pylist(), captions.column("text").to_pylist()
        parts: list[list[Any]] = [[] for _ in COLUMNS]
        size = self.settings.score_batch_size
        for start in range(0, len(new), size):
            some = new[start : start + size]
            image = np.full((len(some), clip.width), np.nan, np.float32)
            for place, row in enumerate(some):
                if keys[row] in rows and pictures.shape[1]:
                    image[place] = pictures[rows[keys[row]]]
            for part, values in zip(
                parts, caption_scores(clip, image, [texts[row] for row in some]), strict=True
            ):
                part.extend(values)
            advance(shown * len(rows) * len(some) / len(new))
        fresh: dict[str, Any] = {"key": pa.array([row_keys[row] for row in new], pa.string())}
        for name, values in zip(COLUMNS, parts, strict=True):
            number = np.asarray(values, np.int32 if name in _COUNTS else np.float32)
            fresh[f"{name}{clip.suffix}"] = to_arrow(number)
        pieces = [pa.table(fresh)]
        if old is not None:
            before = old.drop_columns(["key"]).rename_columns({"row_key": "key"})
            pieces.insert(0, before.select(["key", *names]))
        table = merged(pieces, row_keys)
        return {name: table.column(name) for name in names}, len(row_keys) - len(new)


def picture_embeddings(
    dataset: Dataset, shard: str, clip: Clip
) -> tuple[dict[str, int], np.ndarray[Any, Any]]:
    """Row of each key, and the shard's stored picture embeddings (B, D) float32; NaN where the
    picture did not decode.

    Raises:
        DatasetError: the shard has none of this model.
    """
    if has_picture_embeddings(dataset, shard, clip):
        column = f"image{clip.suffix}"
        table = dataset.read_table("embeddings", shard, columns=["key", column])
        keys = table.column("key").to_pylist()
        return {k: row for row, k in enumerate(keys)}, to_numpy(table.column(column))
    raise DatasetError(
        f"Shard {shard} of {dataset.directory} has no embeddings of {clip.source!r}; run "
        f"`caplab score {dataset.directory}` with this model first."
    )


def has_picture_embeddings(dataset: Dataset, shard: str, clip: Clip) -> bool:
    """Whether the shard's stored picture embeddings are of this model, settings and weights."""
    if not dataset.has_shard("embeddings", shard):
        return False
    marks = noted_in(dataset.table_path("embeddings", shard))
    return bool(marks.get(f"image_embedding{clip.suffix}") == _mark(clip))


def caption_scores(
    clip: Clip, image: np.ndarray[Any, Any], texts: Sequence[str]
) -> tuple[Sequence[Any], ...]:
    """The values of COLUMNS for B pairs of picture embedding (B, D) and caption.

    NaN where a caption is empty or an embedding is.
    """
    model = clip.model

    def excess(text: str) -> int:
        return truncated_tokens(model._tokenize, text)

    split = [
        [piece for sentence in sentences(text) for piece in fitting(sentence, excess)]
        for text in texts
    ]
    whole = np.einsum("bd,bd->b", image, model.embed_texts(texts))
    counts = [len(pieces) for pieces in split]
    owner = np.repeat(np.arange(len(texts)), counts)
    embedded = model.embed_texts([piece for pieces in split for piece in pieces])
    single = np.einsum("bd,bd->b", image[owner], embedded)
    bounds = np.cumsum([0, *counts])
    groups = [single[start:stop] for start, stop in pairwise(bounds)]
    return (
        whole,
        [excess(text) for text in texts],
        counts,
        [float(group.mean()) if len(group) else np.nan for group in groups],
        [float(group.min()) if len(group) else np.nan for group in groups],
        [float(group.max()) if len(group) else np.nan for group in groups],
    )


def _note_of(dataset: Dataset, shard: str, source: str) -> dict[str, Any]:
    return noted_in(dataset.table_path("caption_scores", shard, source))


def _sources(dataset: Dataset, shard: str) -> list[str]:
    return [
        source
        for source in dataset.caption_sources()
        if dataset.has_shard("captions", shard, source)
    ]


def _row_keys(table: pa.Table) -> pa.Array:
    """One string for a caption: two rows share it only if all that was scored is the same."""
    parts = [table.column(name).cast(pa.string()) for name in SCORED_CAPTION]
    joined = pc.binary_join_element_wise(*parts, "|")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _mark(clip: Clip) -> str:
    marks: Mapping[str, str] = ScorerGraph([clip]).signatures
    return marks[clip.adds[0]]
