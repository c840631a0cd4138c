"""The real pictures: two disjoint sets of N drawn from a folder or a dataset, and their features.

Everybody who draws with the same seed draws the same, and a larger N keeps what a smaller one drew.
Pictures are cut to their middle square and brought to the generated pictures' resolution first, as
training does it: what is compared is content and not resolution, and the floor can be reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import atomic_path, fingerprint
from curate.base.telling.words import amount
from curate.pictures.decode import PictureView, decode_batches
from curate.store.dataset import Dataset
from curate.store.shards import IMAGE_EXTENSIONS, iter_shard
from pipelines.judges.real.features import FeatureModel

Features = NDArray[np.float32]
Reader = Callable[[Mapping[str, int]], Iterator[tuple[str, bytes]]]
"""(key, encoded picture) of each key that is wanted, in any order."""

_VERSION = 1  # of how pictures are prepared
_BATCH = 64


class Reference:
    """Real pictures of a folder, or of a dataset and perhaps a selection of it."""

    def __init__(self, source: Path, selection: str | None, seed: int) -> None:
        """List the pictures; none is read.

        Raises:
            ConfigError: there is no such folder, or nothing in it.
            DatasetError: the dataset or its selection is not there or is damaged.
        """
        self.source = source
        if (source / "dataset.json").exists():
            dataset = Dataset.open(source)
            keys = _stored(dataset, selection)
            self._read: Reader = lambda places: _of_dataset(dataset, keys, places)
        else:
            if selection is not None:
                raise ConfigError(f"{source} is no dataset, so it has no selection {selection!r}.")
            keys = _files(source)
            self._read = lambda places: ((name, (source / name).read_bytes()) for name in places)
        self._order = sorted(
            keys, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest()
        )
        self.mark = fingerprint([(key, keys[key]) for key in self._order])

    def __len__(self) -> int:
        return len(self._order)

    def check(self, count: int) -> None:
        """Raise ConfigError where it does not hold two disjoint sets of `count` pictures."""
        if len(self) < 2 * count:
            raise ConfigError(
                f"{self.source} holds {amount(len(self), 'picture')}; sets of {count:,} need "
                f"{2 * count:,}, a set to compare with and another for the floor. Judge at most "
                f"{len(self) // 2:,} (`pictures`), or give a larger reference."
            )

    def features(
        self, model: FeatureModel, count: int, resolution: int, keep: Path
    ) -> tuple[Features, Features]:
        """Of the set to compare with, and of the other one: (count, D) each.

        Computed once a model, resolution and content of the pictures, and kept in `keep`. Memory:
        the features and a batch.

        Raises:
            ConfigError: the reference is too small.
            DatasetError: a picture cannot be read.
        """
        self.check(count)
        drawn = self._order[: 2 * count]
        places = {key: place for place, key in enumerate(drawn)}
        digests = {key: hashlib.sha256(raw).hexdigest() for key, raw in self._read(places)}
        content = [[key, digests[key]] for key in drawn]
        made_of = [_VERSION, dict(model.mark), resolution, content]
        path = keep / f"{fingerprint(made_of)}.npy"
        if not path.is_file():
            found = np.empty((len(drawn), model.width), np.float32)
            view = PictureView(resolution, draft=False)
            for batch in decode_batches(self._read(places), view, _BATCH):
                for key, words in zip(batch.keys, batch.error, strict=True):
                    if words is not None:
                        raise DatasetError(f"{key} of {self.source} cannot be read ({words}).")
                found[[places[key] for key in batch.keys]] = model(batch.picture)
            with atomic_path(path) as temporary, open(temporary, "wb") as out:
                np.save(out, found)
        found = np.load(path)
        return found[0::2], found[1::2]


def _files(folder: Path) -> dict[str, str]:
    """Name -> size of the pictures of a folder."""
    if not folder.is_dir():
        raise ConfigError(f"The reference {folder} does not exist; give a folder or a dataset.")
    found = {
        str(path.relative_to(folder)): f"{path.stat().st_size} bytes"
        for path in sorted(folder.rglob("*"))
        if path.suffix[1:].lower() in IMAGE_EXTENSIONS and path.is_file()
    }
    if not found:
        raise ConfigError(f"The reference {folder} holds no picture (jpg, png or webp).")
    return found


def _stored(dataset: Dataset, selection: str | None) -> dict[str, str]:
    """Key -> shard of the samples whose picture is there."""
    chosen = None if selection is None else set(dataset.selection_keys(selection))
    found = {}
    for shard in dataset.shards():
        rows = dataset.read_table("samples", shard, columns=["key", "status"]).to_pydict()
        for key, status in zip(rows["key"], rows["status"], strict=True):
            if status == "stored" and (chosen is None or key in chosen):
                found[key] = shard
    return found


def _of_dataset(
    dataset: Dataset, shards: Mapping[str, str], places: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    for shard in sorted({shards[key] for key in places}):
        for key, raw, _ in iter_shard(dataset, shard, places):
            yield key, raw
