"""The stage that scores samples among others: further columns of `scores`, from `embeddings`.

    neg_clip_loss          where settings.neg_clip_loss is given
    norm_sim_2_NAME,       for each of settings.norm_sim
    norm_sim_inf_NAME

Each column's signature holds the mark of the embeddings that it rests on, the temperature, and the
hash of the batches or targets, so a rerun computes what is missing or out of date. A sample without
the embedding has null.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.arrow_columns import key_array, to_arrow, to_numpy
from curate.base.column_marks import COLUMNS, note, noted_in
from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint
from curate.base.progress import advance
from curate.base.settings import device_of
from curate.scoring.scorers.clip import Clip
from curate.scoring.scorers.scorer import check_label
from curate.scoring.settings import ScoreSettings
from curate.scoring.whole.batches import Batches, kept_batches, places
from curate.scoring.whole.measures import NormSim, Vectors, normalisation
from curate.scoring.whole.settings import MODEL, WholeSettings
from curate.scoring.whole.targets import reference_mark, reference_vectors
from curate.scoring.whole.temperature import temperature_of
from curate.store.dataset import Dataset
from curate.store.stage import Stage

NEG_CLIP_LOSS = "neg_clip_loss"
_VERSION = 1


class WholeScoreStage(Stage):
    """Scores each sample of a shard among others; `prepare` comes first, once for all shards.

    Cost a sample: 4 * batch * divisions * D operations for neg_clip_loss (1 GFLOP at 32,768, 10
    and 768: seconds of a GPU a million samples, hours of a CPU core; a batch of 4,096 in 4
    divisions costs a twentieth), R D + D^2 for a target set of R. Memory a worker: one batch in
    float32 (200 MB), the target sets, and the embeddings of one shard.
    """

    name = "among"
    needs = ("scores", "embeddings")

    def __init__(self, settings: WholeSettings, scores: ScoreSettings) -> None:
        """Check the settings, and read the temperature.

        Args:
            scores: the CLIP model that made the embeddings, and where to compute.

        Raises:
            ConfigError: weights that do not tell their temperature, or a target that is not there.
        """
        self.settings, self.device = settings, device_of(scores.device)
        self.temperature = 0.0
        if settings.neg_clip_loss == MODEL:
            self.temperature = temperature_of(Clip.of(scores)[0])
        elif settings.neg_clip_loss is not None:
            self.temperature = float(settings.neg_clip_loss)
        self._targets: dict[str, str] = {}
        for label, source in settings.norm_sim.items():
            check_label(label)
            mark = reference_mark(source)
            if mark is None:
                raise ConfigError(f"The target {source} of norm_sim does not exist.")
            self._targets[label] = mark
        self._batches: tuple[Path, str] | None = None
        self._opened: dict[str, NormSim] = {}

    @property
    def columns(self) -> list[str]:
        """What it adds to `scores`."""
        mine = [NEG_CLIP_LOSS] if self.temperature else []
        return [*mine, *(f"norm_sim_{p}_{name}" for name in self._targets for p in ("2", "inf"))]

    def prepare(self, dataset: Dataset) -> None:
        """Draw the batches, where that is still to do; after the dataset was scored.

        Raises:
            DatasetError: no sample has both embeddings.
        """
        if self.temperature:
            size, divisions = self.settings.neg_clip_batch, self.settings.neg_clip_divisions
            made_by = fingerprint(sorted({self._embedded(dataset, s) for s in dataset.shards()}))
            self._batches = kept_batches(dataset, size, divisions, made_by)

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the scores hold every column, made by these settings from these embeddings."""
        if not dataset.has_shard("embeddings", shard):
            return False
        marks = noted_in(dataset.table_path("scores", shard))
        return self._marks(dataset, shard).items() <= marks.items()

    def open(self) -> None:
        """Read the target sets.

        Raises:
            ConfigError: one that cannot be read.
        """
        for label in self._targets:
            vectors = reference_vectors(Path(self.settings.norm_sim[label]))
            self._opened[label] = NormSim(vectors, self.device)

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Compute the columns of one shard.

        Returns:
            {"compared": n} samples with both embeddings.

        Raises:
            DatasetError: scores and embeddings are of different samples.
            ConfigError: targets of another width than the embeddings.
        """
        table = dataset.read_table("embeddings", shard, columns=["key", "image", "text"])
        scores = dataset.read_table("scores", shard)
        if scores.column("key") != table.column("key"):
            raise DatasetError(
                f"Scores and embeddings of shard {shard} are of different samples; run "
                f"`caplab check {dataset.directory}`."
            )
        image, pictured = _present(to_numpy(table.column("image")))
        text, told = _present(to_numpy(table.column("text")))
        columns: dict[str, NDArray[np.float64]] = {}
        both = pictured & told
        if self.temperature:
            keys = key_array(table.column("key"))
            columns[NEG_CLIP_LOSS] = _spread(self._neg_clip_loss(keys, image, text, both), both)
        for label, target in self._opened.items():
            if pictured.any() and target.width != image.shape[1]:
                raise ConfigError(
                    f"The targets {label!r} of norm_sim have {target.width} numbers and the "
                    f"embeddings here {image.shape[1]}; embed both with the same CLIP model."
                )
            two, infinity = target(image[pictured]) if pictured.any() else (np.zeros(0),) * 2
            columns[f"norm_sim_2_{label}"] = _spread(two, pictured)
            columns[f"norm_sim_inf_{label}"] = _spread(infinity, pictured)
        self._write(dataset, shard, scores, columns)
        advance(len(both))
        return {"compared": int(both.sum())}

    def _neg_clip_loss(
        self, keys: NDArray[np.bytes_], image: Vectors, text: Vectors, both: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        assert self._batches is not None
        if not both.any():
            return np.zeros(0)
        v, t = image[both], text[both]
        total, divisions = np.zeros(len(v)), 0
        for drawn, other_image, other_text in Batches(self._batches[0]):
            own = places(keys[both], drawn)
            others = (other_image, other_text)
            total += normalisation(v, t, others, own, self.temperature, self.device)
            divisions += 1
        return np.einsum("bd,bd->b", v, t).astype(np.float64) - total / divisions

    def _write(
        self, dataset: Dataset, shard: str, scores: pa.Table, columns: Mapping[str, Any]
    ) -> None:
        for name, values in columns.items():
            column = to_arrow(values.astype(np.float32))
            place = scores.schema.get_field_index(name)
            if place < 0:
                scores = scores.append_column(name, column)
            else:
                scores = scores.set_column(place, name, column)
        marks = noted_in(dataset.table_path("scores", shard)) | self._marks(dataset, shard)
        notes = {**(scores.schema.metadata or {}), **note(marks, COLUMNS)}
        dataset.write_table("scores", scores.replace_schema_metadata(notes), shard)

    def _marks(self, dataset: Dataset, shard: str) -> dict[str, str]:
        """Column -> signature of what it is to be in a shard."""
        made_by = self._embedded(dataset, shard)
        marks = {}
        if self.temperature:
            batches = self._batches[1] if self._batches else None
            marks[NEG_CLIP_LOSS] = fingerprint([_VERSION, self.temperature, batches, made_by])
        for label, targets in self._targets.items():
            for p in ("2", "inf"):
                marks[f"norm_sim_{p}_{label}"] = fingerprint([_VERSION, p, targets, made_by])
        return marks

    def _embedded(self, dataset: Dataset, shard: str) -> str:
        """What made a shard's embeddings of pictures and texts."""
        marks = noted_in(dataset.table_path("embeddings", shard))
        return fingerprint([marks.get(name) for name in ("image_embedding", "text_embedding")])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}


def _present(vectors: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
    """Vectors as they are stored, like those of clip_similarity, and which rows have one."""
    known = np.isfinite(vectors).all(axis=1) & (vectors.shape[1] > 0)
    return vectors, np.asarray(known, bool)


def _spread(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values of the rows that are known among all; NaN elsewhere."""
    out = np.full(len(known), np.nan)
    out[known] = values
    return out
