"""How well a caption fits its picture beside the alt text, by the CLIP model that scored the data.

The picture's embedding is the stored one, so no picture is opened. CLIP reads 77 tokens and a
descriptive caption has more, so captions are compared sentence by sentence: the mean over their
sentences decides, and nothing is cut off.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import read_json
from curate.base.settings import load_settings
from curate.scoring.captions import caption_scores, has_picture_embeddings, picture_embeddings
from curate.scoring.scorers.clip import Clip
from curate.scoring.settings import ScoreSettings
from curate.store.dataset import Dataset
from recaption.measure.settings import MeasureSettings

Embedding = NDArray[np.float32]
"""(D,) picture embedding of unit length."""

ROWS_AT_ONCE = 64
"""Captions whose sentences go through the text tower together."""


@dataclass(frozen=True)
class Similarities:
    """Cosines of N captions and their pictures, (N,) float32, NaN where either is missing.

    Attributes:
        whole: of the caption, as far as the model's context reaches.
        sentence_mean, sentence_min: over its sentences; none is cut off.
    """

    whole: NDArray[np.float32]
    sentence_mean: NDArray[np.float32]
    sentence_min: NDArray[np.float32]

    @classmethod
    def unknown(cls, count: int) -> Similarities:
        """All NaN."""
        nothing = np.full(count, np.nan, np.float32)
        return cls(nothing, nothing, nothing)


class CaptionSimilarity:
    """Compares captions and pictures; picklable, the model is loaded by `open` in the worker.

    Attributes:
        clip: the model; None where nothing is compared.
    """

    def __init__(
        self, settings: MeasureSettings, dataset: Dataset | None = None, device: str = "auto"
    ) -> None:
        """Find the model, and check that the dataset's embeddings are its.

        Args:
            dataset: None has no embeddings.
            device: where the text tower runs.

        Raises:
            ConfigError: clip_gate is "on" and there are no such embeddings; or the model's weights
                are missing.
        """
        self.clip = _find_clip(settings, dataset, device)
        # A picture's captions and tries come close to each other, so one shard is enough.
        self._shard: tuple[str, Mapping[str, int], NDArray[np.float32]] | None = None
        self._comparing: threading.Lock | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shard": None, "_comparing": None}

    def open(self) -> None:
        """Load the model, if any.

        Raises:
            ConfigError: its weights do not load.
        """
        if self.clip is not None:
            self.clip.open()
            self._comparing = threading.Lock()

    def embeddings(
        self, dataset: Dataset, shard: str, keys: Sequence[str]
    ) -> list[Embedding | None]:
        """The stored embedding of each sample's picture, in the order of `keys`.

        None where the picture did not decode when it was scored, where it was not scored, or where
        nothing is compared. The last shard's embeddings stay in memory.
        """
        if self.clip is None:
            return [None] * len(keys)
        if self._shard is None or self._shard[0] != shard:
            if has_picture_embeddings(dataset, shard, self.clip):
                self._shard = (shard, *picture_embeddings(dataset, shard, self.clip))
            else:
                self._shard = (shard, {}, np.empty((0, 0), np.float32))
        _, rows, vectors = self._shard
        found: list[Embedding | None] = []
        for key in keys:
            vector = vectors[rows[key]] if key in rows else None
            usable = vector is not None and vector.size > 0 and not np.isnan(vector[0])
            found.append(vector if usable else None)
        return found

    def compare(
        self, embeddings: Sequence[Embedding | None], texts: Sequence[str | None]
    ) -> Similarities:
        """N captions with N picture embeddings; cost: one text tower a caption and a sentence."""
        result = Similarities(*(np.full(len(texts), np.nan, np.float32) for _ in range(3)))
        pairs = zip(embeddings, texts, strict=True)
        known = [
            row
            for row, (vector, text) in enumerate(pairs)
            if vector is not None and text is not None and text.strip()
        ]
        if self.clip is None:
            return result
        for start in range(0, len(known), ROWS_AT_ONCE):
            some = known[start : start + ROWS_AT_ONCE]
            vectors = np.stack([_present(embeddings[row]) for row in some])
            # Tokenizers keep their padding between calls and refuse to serve two threads.
            with self._comparing or contextlib.nullcontext():
                columns = caption_scores(self.clip, vectors, [texts[row] or "" for row in some])
            result.whole[some], _, _, result.sentence_mean[some], result.sentence_min[some], _ = (
                columns
            )
        return result


def stored_score_settings(dataset: Dataset) -> ScoreSettings | None:
    """The settings that the dataset was last scored with; None where nobody recorded any.

    `caplab score` leaves them in scores.json, `caplab curate` in dataset.json.
    """
    scores = dataset.directory / "scores.json"
    record = read_json(scores) if scores.exists() else dataset.record()
    fields = ScoreSettings.model_fields
    stored = {n: v for n, v in (record.get("settings") or {}).items() if n in fields}
    return load_settings(ScoreSettings, None, stored) if "clip_model" in stored else None


def _find_clip(settings: MeasureSettings, dataset: Dataset | None, device: str) -> Clip | None:
    if settings.clip_gate == "off":
        return None
    must = settings.clip_gate == "on"
    scored = dataset is not None and dataset.has_table("embeddings")
    wanted = _wanted(settings, dataset, device) if dataset is not None and scored else None
    if wanted is None or dataset is None:
        if must:
            raise ConfigError(
                "clip_gate = 'on' needs a dataset with picture embeddings and the CLIP model that "
                "made them; score it with `caplab score` first, or leave clip_gate at auto."
            )
        return None
    try:
        clips = Clip.of(wanted)
    except ConfigError as error:
        raise ConfigError(
            f"{error} It scored this dataset and would compare captions with their pictures; "
            f"clip_gate = off leaves that out."
        ) from error
    for clip in clips:
        named = (clip.source, clip.pretrained) == (settings.clip_model, settings.clip_pretrained)
        asked = named if settings.clip_model else clip.suffix == ""
        if asked and any(has_picture_embeddings(dataset, s, clip) for s in dataset.shards()):
            return clip
    if must:
        raise ConfigError(
            f"{dataset.directory} has no picture embeddings of the CLIP model "
            f"{settings.clip_model or wanted.clip_model!r} with these settings; run `caplab score` "
            f"with it first, or leave clip_gate at auto."
        )
    return None


def _wanted(settings: MeasureSettings, dataset: Dataset, device: str) -> ScoreSettings | None:
    """The dataset's own score settings, with the model that these settings name beside its own."""
    stored = stored_score_settings(dataset)
    if stored is None:
        if settings.clip_model is None:
            return None
        stored = ScoreSettings()
    changes: dict[str, Any] = {"device": device}
    named = (settings.clip_model, settings.clip_pretrained)
    if settings.clip_model and named != (stored.clip_model, stored.clip_pretrained):
        source = "@".join(part for part in named if part)
        if source not in stored.more_clips.values():
            changes |= dict(zip(("clip_model", "clip_pretrained"), named, strict=True))
            changes["clip_tokenizer"] = None
    return stored.model_copy(update=changes)


def _present(vector: Embedding | None) -> Embedding:
    assert vector is not None
    return vector
