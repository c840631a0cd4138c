"""The index of a dataset's pictures: made from the embeddings table, made again when that changed.

    DIR/search/image-MARK/          of the main CLIP; image_LABEL-MARK of a further one
      index.json                    width, first row of every shard, lists
      vectors.f16, keys.bin         curate.search.vectors
      codes-00000.faiss, ...        curate.search.codes, from `EXACT_UP_TO` rows on

A dataset that cannot be written has them elsewhere (curate.search.place).
MARK is of the files that it was made from, so another state of the table is another folder. A
folder is written beside its place and renamed when it is whole. It holds nothing that cannot be
made again: delete it at will; `caplab check` does not look at it.

Up to `EXACT_UP_TO` rows in all, or `EXACT_AMONG` that pass a rule, every vector is compared: the
answer is exact. Beyond, the codes give `CANDIDATES` candidates (or four times as many as are
wanted), and the stored float16 vectors decide among them: similarities are always exact, and a near
one is missed now and then.

Disk for N rows of D numbers: codes 64 N bytes, with at most 7 MB for centroids and axes; vectors
2 D N; keys 32 N. A search reads an eighth of the codes and 2 D bytes a candidate.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.base.column_marks import noted_in
from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint, read_record, temporary_path, write_json
from curate.base.settings import nearest
from curate.duplicates.candidates.vectors import Floats
from curate.scoring.score_tables import place_of
from curate.search.codes import Codes, build_codes
from curate.search.place import search_folder
from curate.search.vectors import StoredVectors, are_whole, write_vectors
from curate.store.dataset import Dataset
from curate.store.holes import DUPLICATE_TABLES, TARS, refuse_holes
from curate.store.lock import writing
from curate.store.sample_view import tables_version

EXACT_UP_TO = 50_000
EXACT_AMONG = 10_000
"""Rows that pass a rule; they are read one by one, which costs more than the codes of all soon."""
CANDIDATES = 400
_TIMES = 4
_VERSION = 1  # of the files; a change of it makes those of before stale
_RECORD = "index.json"
_NOT_READ = ("scores", "fingerprints", TARS, "captions", "caption_scores", *DUPLICATE_TABLES)


class PictureIndex:
    """The files of `folder`. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        record = read_record(folder / _RECORD)
        self.starts: Mapping[str, int] = record["starts"]
        self.vectors = StoredVectors(folder, record["width"])
        self._codes = Codes(folder) if record["lists"] else None

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(
        self, query: Floats, count: int, among: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Up to `count` rows with the largest cosine with `query` (D,), and it; best first.

        Args:
            among: (N,) rows that may be found; None means all.
        """
        few = None if among is None else np.flatnonzero(among)
        if self._codes is None or (few is not None and len(few) <= EXACT_AMONG):
            return self.vectors.exact(query, count, few)
        wanted = max(CANDIDATES, _TIMES * count)
        return self.vectors.exact(query, count, self._codes.candidates(query, wanted, among))

    def shards_of(self, rows: NDArray[np.int64]) -> list[str]:
        """The shards that rows lie in, each once."""
        names, firsts = list(self.starts), np.array(list(self.starts.values()))
        # Of shards without a row the last one that begins here is the one that has it.
        places = np.searchsorted(firsts, rows, side="right") - 1
        return [names[place] for place in np.unique(places)]


def open_index(dataset: Dataset, label: str | None = None) -> PictureIndex:
    """The index of the CLIP model `label` (None: the main one), made where it is not there yet.

    Cost where it is there: the footers of the embeddings' files. Where it is made, see the module:
    a minute or two a million rows on two cores.

    Raises:
        ConfigError: there is no such model.
        DatasetError: nothing was embedded, a table has lost files, or another process makes it at
            this moment.
    """
    column = embedding_column(dataset, label)
    folder = _folder(dataset, column)
    if not _is_whole(folder):
        # Those that are not there would be missing without a word.
        refuse_holes(dataset, but=_NOT_READ, unfinished=True)
        inside = folder.parent.parent == dataset.directory
        with writing(dataset.directory if inside else folder.parent, "search"):
            if not _is_whole(folder):
                _build(dataset, column, folder)
    return PictureIndex(folder)


def is_built(dataset: Dataset, label: str | None = None) -> bool:
    """Whether `open_index` has nothing to make."""
    return _is_whole(_folder(dataset, embedding_column(dataset, label)))


def embedding_column(dataset: Dataset, label: str | None = None) -> str:
    """The column of the embeddings table that holds the pictures of a CLIP model.

    Raises:
        ConfigError: no model has that label. DatasetError: nothing was embedded yet.
    """
    files = dataset.table_files("embeddings")
    if not files:
        raise DatasetError(
            f"{dataset.directory} has no embeddings to search; finish `caplab curate` on it first."
        )
    known = labels(dataset)
    if label not in known:
        further = [name for name in known if name]
        hint = nearest(str(label), further) if further else "it has the main one's alone."
        raise ConfigError(f"{dataset.directory} has no embeddings of a CLIP {label!r}; {hint}")
    return place_of(f"image_embedding_{label}" if label else "image_embedding")[1]


def labels(dataset: Dataset) -> list[str | None]:
    """Of the CLIP models that embedded the pictures; None is the main one."""
    files = dataset.table_files("embeddings")
    names = pq.read_schema(files[0]).names if files else []
    found = [name for name in names if name == "image" or name.startswith("image_")]
    return [name.removeprefix("image").removeprefix("_") or None for name in found]


def column_mark(dataset: Dataset, label: str | None) -> str | None:
    """The signature of what embedded the pictures; None where the files do not tell.

    Raises:
        DatasetError: shards were embedded by different models.
    """
    name = f"image_embedding_{label}" if label else "image_embedding"
    marks = {noted_in(path).get(name) for path in dataset.table_files("embeddings")}
    if len(marks) > 1:
        raise DatasetError(
            f"{dataset.directory} has embeddings of more than one CLIP model in one column; "
            f"`caplab score {dataset.directory}` brings them up to date."
        )
    mark: str | None = marks.pop()
    return mark


def _folder(dataset: Dataset, column: str) -> Path:
    mark = fingerprint([_VERSION, column, tables_version(dataset, ["embeddings"])])
    name = f"{column}-{mark}"
    own = dataset.directory / "search" / name
    return own if _is_whole(own) else search_folder(dataset.directory) / name


def _is_whole(folder: Path) -> bool:
    if not (folder / _RECORD).is_file():
        return False
    record = read_record(folder / _RECORD)
    return are_whole(folder, record["rows"], record["width"])


def _build(dataset: Dataset, column: str, folder: Path) -> None:
    temporary = temporary_path(folder)
    temporary.mkdir(parents=True)
    try:
        width, starts = write_vectors(dataset, column, temporary)
        vectors = StoredVectors(temporary, width)
        lists = build_codes(vectors, temporary) if len(vectors) > EXACT_UP_TO else 0
        record = {"rows": len(vectors), "width": width, "lists": lists, "starts": starts}
        write_json(temporary / _RECORD, record)
        for path in temporary.iterdir():
            with open(path, "rb") as written:
                os.fsync(written.fileno())
        for old in folder.parent.glob(f"{column}-*"):  # of an earlier table, or damaged
            shutil.rmtree(old)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
