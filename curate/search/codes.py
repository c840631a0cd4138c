"""What is searched first: every vector as 56 bytes, in lists around centroids (faiss, IVF and PQ).

Vectors are turned to their principal axes, dealt out so that each of the 56 parts has an equal
share of the variance; what is left of a vector beside its centroid is coded a byte a part, 256
choices each (Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011). A
query asks an eighth of the lists. What it finds are candidates, looked at again by the stored
vectors (curate.search.index).

Why an eighth: on a million made vectors of 512 numbers, spread as CLIP's are
(pipelines/bench/view/vectors.py has how), 64 of 1,024 lists hold .98 of a text's ten nearest, 128
hold .996; a text's are spread over more lists than a picture's. `caplab bench view` measures
recall, bytes and time; docs/bench-view.md says how.

Files hold `SEGMENT` rows each and are mapped, so building takes the memory of one of them (64 bytes
a row) and a search that of the lists that it asks. Cost of building: 64 vectors a centroid to
train, then for each vector a product with every centroid: N x lists x D multiplications. Of a
search: an eighth of N codes, 5 to 10 ms a million.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import DatasetError
from curate.search.vectors import StoredVectors

if TYPE_CHECKING:
    import faiss

    from curate.duplicates.candidates.vectors import Floats

PARTS = 56
"""Bytes of a code; with faiss's 8 of a row's number 64 a row."""
SEGMENT = 1 << 22
_ROWS_A_LIST = 1000
_FEWEST_LISTS, _MOST_LISTS = 64, 2048
_TRAINED_ON, _LEAST_SAMPLE = 64, 1 << 14
"""Vectors a centroid, and at least: codes have 256 choices, which take 39 vectors each."""
_ASKED, _FEWEST_ASKED = 8, 32
"""One list in so many is asked, but no fewer than those, where everything may be found."""
_NARROWEST, _WIDEST = 5, 13
"""Numbers of a turned vector that one byte stands for, at least and at most: of vectors of more
than 728 the axes with the least variance are left out, and centroids and axes stay below 7 MB."""


def build_codes(vectors: StoredVectors, folder: Path) -> int:
    """Write the codes of all rows into `folder`; how many lists there are."""
    import faiss

    total = len(vectors)
    lists = 1 << round(np.log2(total / _ROWS_A_LIST))
    lists = min(max(lists, _FEWEST_LISTS), _MOST_LISTS)
    empty = _trained(vectors, lists)
    for number, first in enumerate(range(0, total, SEGMENT)):
        index = faiss.clone_index(empty)
        rows = np.arange(first, min(first + SEGMENT, total))
        for some, block in vectors.blocks(rows):
            index.add_with_ids(block, some)
        faiss.write_index(index, str(folder / f"codes-{number:05d}.faiss"))
    return lists


def _trained(vectors: StoredVectors, lists: int) -> faiss.Index:
    import faiss

    random = np.random.default_rng(0)
    count = min(len(vectors), max(_TRAINED_ON * lists, _LEAST_SAMPLE))
    chosen = np.sort(random.choice(len(vectors), count, replace=False))
    sample = np.concatenate([block for _, block in vectors.blocks(chosen)])
    parts = min(PARTS, max(1, vectors.width // _NARROWEST))
    width = min(vectors.width // parts, _WIDEST) * parts
    turn = faiss.PCAMatrix(vectors.width, width)
    turn.balanced_bins = parts
    turn.train(sample)
    # Taking the mean off a query too would change who is nearest by inner product. And what faiss
    # keeps of the training would double the axes on disk.
    axes = faiss.LinearTransform(vectors.width, width, False)
    faiss.copy_array_to_vector(faiss.vector_to_array(turn.A), axes.A)
    axes.is_trained = True
    coarse = faiss.IndexFlatIP(width)
    ivf = faiss.IndexIVFPQ(coarse, width, lists, parts, 8, faiss.METRIC_INNER_PRODUCT)
    ivf.cp.niter = ivf.pq.cp.niter = 10
    ivf.cp.max_points_per_centroid = _TRAINED_ON
    ivf.train(axes.apply(sample))
    index = faiss.IndexPreTransform(axes, ivf)
    index.is_trained = True
    return index


class Codes:
    """The files of `folder`, mapped."""

    def __init__(self, folder: Path) -> None:
        import faiss

        self._segments: list[Any] = []
        for path in sorted(folder.glob("codes-*.faiss")):
            try:
                self._segments.append(faiss.read_index(str(path), faiss.IO_FLAG_MMAP))
            except RuntimeError as error:
                raise DatasetError(
                    f"{path} is unreadable; delete {folder} and search again."
                ) from error
        self.lists = int(faiss.extract_index_ivf(self._segments[0]).nlist)

    def candidates(
        self, query: Floats, count: int, among: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Up to `count` rows of each file that are probably nearest to `query` (D,), ascending.

        Args:
            among: (N,) rows that may be found. The fewer they are, the more lists are asked: an
                eighth of all divided by their share, so that as many rows are looked at.
        """
        import faiss

        stubless: Any = faiss  # faiss's stubs do not know its wrappers
        share = 1.0 if among is None else max(float(among.mean()), 1e-9)
        all_may = max(self.lists / _ASKED, _FEWEST_ASKED)
        asked = min(self.lists, int(np.ceil(all_may / share)))
        options = stubless.SearchParametersIVF(nprobe=asked, sel=only(among))
        outer = stubless.SearchParametersPreTransform(index_params=options)
        found = [index.search(query[None], count, params=outer)[1][0] for index in self._segments]
        rows = np.concatenate(found)
        return np.sort(rows[rows >= 0])


def only(among: NDArray[np.bool_] | None) -> Any:
    """faiss's selector of the rows of `among` (N,); None for all."""
    import faiss

    selector: Any = faiss.IDSelectorBitmap
    return None if among is None else selector(np.packbits(among, bitorder="little"))
