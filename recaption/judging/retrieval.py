"""Does a caption find its own picture among 64? R@1 with CLIP, against a shuffled floor.

The caption's embedding is compared with the stored embeddings of 64 pictures, of which one is its
own: a caption that would fit any picture finds its own one time in 64. CLIP reads 77 tokens and is
nearly blind to counts and relations, so this measures how specific the first part of a caption is
in what CLIP sees.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.base.arrow_columns import to_numpy
from curate.base.errors import DatasetError
from curate.scoring.captions import picture_embeddings
from curate.scoring.scorers.clip import Clip
from curate.store.dataset import Dataset
from recaption.judging.caption_sets import CaptionSet, sample_captions
from recaption.judging.intervals import CONFIDENCE, Column, Estimate

GROUP = 64
CHANCE = 1 / GROUP
# Fewer groups than this are too few to tell how far another choice of pictures would move R@1.
LEAST_GROUPS = 5
# Embeddings of at most this many shards are read, one at a time.
_SHARDS = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Retrieval:
    """R@1 of each set over the same groups of pictures.

    Attributes:
        hits: set -> (groups, 64) in 0..1: whether each caption found its picture.
        shuffled: set -> the same with the captions of the group before: what the measure gives
            where a caption tells nothing of the pictures, 1 / 64 on average. Empty for one group.
        reason: why nothing was measured; empty where it was.
    """

    hits: dict[CaptionSet, Column]
    shuffled: dict[CaptionSet, Column]
    reason: str = ""

    @property
    def groups(self) -> int:
        """How many groups of 64 pictures."""
        return len(next(iter(self.hits.values()), ()))


def retrieval(
    dataset: Dataset, sets: Sequence[CaptionSet], clip: Clip, groups: int, seed: int = 0
) -> Retrieval:
    """Measure all sets on the same groups; pictures and groups follow from the seed.

    Raises:
        DatasetError: the stored embeddings are missing or of another model.

    Cost: one forward of the text tower a caption (at most groups * 64 a set), and reading the
    embeddings of up to 64 shards, one at a time.
    """
    embedded = _embedded_keys(dataset, clip, seed)
    chosen = sample_captions(
        dataset, sets, groups * GROUP, seed, among=pa.array(list(embedded), pa.string())
    )
    if not chosen.shared or len(chosen.keys) < GROUP:
        found = len(chosen.keys)
        return Retrieval(
            {},
            {},
            f"{found} pictures have an embedding and a caption of every set, {GROUP} are needed",
        )
    count = len(chosen.keys) // GROUP
    keys = chosen.keys[: count * GROUP]
    pictures = _read_pictures(dataset, clip, {key: embedded[key] for key in keys})
    hits, shuffled = {}, {}
    for one in sets:
        texts = clip.model.embed_texts(chosen.texts(one)[: len(keys)])
        hits[one] = first_ranks(texts, pictures)
        # Among its own group's pictures a moved caption would still find its own first.
        if count > 1:
            shuffled[one] = first_ranks(np.roll(texts, GROUP, axis=0), pictures)
    return Retrieval(hits, shuffled)


def stored_alt_hits(dataset: Dataset, groups: int, seed: int = 0) -> Column | None:
    """R@1 hits of alt texts, (groups, 64), by stored embeddings alone: no model is loaded.

    None where fewer than 64 samples have both embeddings. Cost: as `retrieval`, without forwards.
    """
    pictures, texts = [], []
    for shard in _some_shards(dataset, seed):
        table = dataset.read_table("embeddings", shard, columns=["image", "text"])
        table = table.filter(pc.and_(table["image"].is_valid(), table["text"].is_valid()))
        pictures.append(to_numpy(table.column("image")))
        texts.append(to_numpy(table.column("text")))
    known = [part for part in range(len(pictures)) if len(pictures[part])]
    if not known:
        return None
    image, text = (np.concatenate([some[part] for part in known]) for some in (pictures, texts))
    both = np.flatnonzero(np.isfinite(image[:, 0]) & np.isfinite(text[:, 0]))
    count = min(groups, len(both) // GROUP)
    if not count:
        return None
    chosen = np.random.default_rng(seed).permutation(both)[: count * GROUP]
    return first_ranks(text[chosen], image[chosen])


def first_ranks(texts: Floats, pictures: Floats, group: int = GROUP) -> Column:
    """Whether each text finds its picture first in its group: (groups, group) in 0..1.

    Args:
        texts, pictures: (groups * group, D), unit length; a text's own picture is in its row.

    A tie for the first place counts as one over the number of tied pictures (copies of a picture
    are such a tie). A text without an embedding (a row of nan) finds nothing.
    """
    groups = len(texts) // group
    shape = (groups, group, texts.shape[1])
    similar = np.einsum("gtd,gpd->gtp", texts.reshape(shape), pictures.reshape(shape))
    own = np.einsum("gtt->gt", similar)[..., None]
    better, tied = (similar > own).sum(-1), (similar == own).sum(-1)
    return np.where((better == 0) & (tied > 0), 1 / np.maximum(tied, 1), 0.0)


def over_groups(hits: Column) -> Estimate:
    """Mean of (groups, 64) values with Student's t interval over groups; `pictures` = captions.

    Captions of a group share their pictures, so the group is the unit; fewer than LEAST_GROUPS have
    no interval (nan). Differences of two sets' hits may be given as well.
    """
    from scipy import stats

    shares = hits.mean(1)
    value, count = float(shares.mean()), len(shares)
    if count < LEAST_GROUPS:
        return Estimate(value, float("nan"), float("nan"), hits.size)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * stats.sem(shares))
    return Estimate(value, value - half, value + half, hits.size)


def _embedded_keys(dataset: Dataset, clip: Clip, seed: int) -> dict[str, str]:
    """Key -> shard of the samples with a picture embedding, in a seeded choice of shards."""
    shards = _some_shards(dataset, seed)
    if not shards:
        raise DatasetError(f"{dataset.directory} holds no picture embeddings.")
    found = {}
    for shard in shards:
        rows, vectors = picture_embeddings(dataset, shard, clip)
        if vectors.ndim == 2 and vectors.shape[1]:
            known = ~np.isnan(vectors[:, 0])
            found.update({key: shard for key, row in rows.items() if known[row]})
    return found


def _some_shards(dataset: Dataset, seed: int) -> list[str]:
    """Shards with embeddings: all, or a seeded choice of _SHARDS."""
    shards = [shard for shard in dataset.shards() if dataset.has_shard("embeddings", shard)]
    return sorted(random.Random(seed).sample(shards, _SHARDS)) if len(shards) > _SHARDS else shards


def _read_pictures(dataset: Dataset, clip: Clip, shard_of: dict[str, str]) -> Floats:
    """Embeddings of the keys, in their order: (N, D)."""
    place = {key: number for number, key in enumerate(shard_of)}
    pictures = np.empty((len(place), clip.width), np.float32)
    for shard in sorted(set(shard_of.values())):
        rows, vectors = picture_embeddings(dataset, shard, clip)
        for key, own in shard_of.items():
            if own == shard:
                pictures[place[key]] = vectors[rows[key]]
    return pictures
