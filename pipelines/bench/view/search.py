"""The search's index beside exact search: recall, bytes and time, in one run over one dataset.

The dataset is generated (pipelines.bench.common.generate_dataset), its embeddings are those of
pipelines.bench.view.vectors. The peer is faiss's exact search over the same float16 vectors, in
memory (IndexScalarQuantizer with QT_fp16), one thread, which is the truth of recall as well. An
index that answers fast and wrongly shows in its recall, which has a floor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.arrow_columns import to_arrow
from curate.base.provenance import package_versions
from curate.duplicates.candidates.vectors import Floats
from curate.search.codes import only
from curate.search.index import PictureIndex, open_index
from curate.search.vectors import StoredVectors
from curate.store.dataset import Dataset
from pipelines.bench.common.figures import Figure, Figures
from pipelines.bench.common.generate_dataset import Shape, generate
from pipelines.bench.view.vectors import MadeVectors

NEAREST = 10


def generated(directory: Path, rows: int, width: int) -> Dataset:
    """A dataset of `rows` rows with made embeddings, or the one that is there already."""
    dataset = generate(directory, Shape(rows=rows, embedding_width=0))
    made = MadeVectors(width)
    first = 0
    for shard in dataset.shards():
        keys = dataset.read_table("scores", shard, columns=["key"])
        if not dataset.has_shard("embeddings", shard):
            vectors = made.pictures(keys.num_rows, first)
            image = to_arrow(vectors, None, pa.list_(pa.float16()))
            columns = {"key": keys["key"], "image": image, "text": pa.nulls(len(image), image.type)}
            dataset.write_table("embeddings", pa.table(columns), shard)
        first += keys.num_rows
    return dataset


def search_figures(dataset: Dataset, width: int, questions: int, prefix: str) -> list[Figure]:
    """Build the index where it is not there yet, and ask it and exact search the same questions.

    Args:
        dataset: of `generated`, with this width.
        questions: how many pictures, and how many texts.
    """
    import faiss

    figures = Figures(prefix)
    faiss.omp_set_num_threads(1)
    started = time.perf_counter()
    index = open_index(dataset)
    figures.add("open_or_build", time.perf_counter() - started, "s")
    rows = len(index)
    sizes = {path.name: path.stat().st_size for path in index.folder.iterdir()}
    codes = sum(size for name, size in sizes.items() if name.startswith("codes"))
    most = 75.0 if rows > 500_000 else None  # below, centroids and axes weigh more
    figures.add("bytes_a_row/searched_first", codes / rows, "bytes", at_most=most)
    figures.add("bytes_a_row/all", sum(sizes.values()) / rows, "bytes")
    pictures, texts = MadeVectors(width).questions(questions)
    exact = _exact(index.vectors)
    peer = f"faiss {package_versions()['faiss-cpu']} exact, fp16"
    for kind, asked in (("picture", pictures), ("text", texts)):
        found, ours = _asked(lambda query: index.nearest(query, NEAREST)[0], asked)
        truth, theirs = _asked(lambda query: exact.search(query[None], NEAREST)[1][0], asked)
        hits = np.mean([len(np.intersect1d(*pair)) for pair in zip(found, truth, strict=True)])
        figures.add(f"{kind}/recall@{NEAREST}", float(hits / NEAREST), "", at_least=0.95)
        figures.add(f"{kind}/median", float(np.median(ours)), "ms", at_most=100.0)
        figures.add(f"{kind}/beside_exact", float(np.median(ours)), "ms", (peer, np.median(theirs)))
    for share in (0.5, 0.01):
        figures += _filtered(index, exact, texts, share, f"{prefix}/text_among_{share:.0%}")
    return figures


def _filtered(index: PictureIndex, exact: Any, texts: Floats, share: float, prefix: str) -> Figures:
    """The same where only a share of the rows, drawn at random, may be found."""
    import faiss

    stubless: Any = faiss
    figures = Figures(prefix)
    among = np.random.default_rng(3).random(len(index)) < share
    chosen = stubless.SearchParameters(sel=only(among))
    found, ours = _asked(lambda query: index.nearest(query, NEAREST, among)[0], texts)
    truth, _ = _asked(lambda query: exact.search(query[None], NEAREST, params=chosen)[1][0], texts)
    hits = np.mean([len(np.intersect1d(*pair)) for pair in zip(found, truth, strict=True)])
    figures.add(f"recall@{NEAREST}", float(hits / NEAREST), "", at_least=0.95)
    figures.add("median", float(np.median(ours)), "ms", at_most=100.0)
    return figures


def _exact(vectors: StoredVectors) -> Any:
    import faiss

    kind = faiss.ScalarQuantizer.QT_fp16
    exact = faiss.IndexScalarQuantizer(vectors.width, kind, faiss.METRIC_INNER_PRODUCT)
    exact.train(np.zeros((1, vectors.width), np.float32))
    for _, block in vectors.blocks():
        exact.add(block)
    return exact


def _asked(
    ask: Callable[[Floats], NDArray[np.int64]], questions: Floats
) -> tuple[list[NDArray[np.int64]], list[float]]:
    """The answers and their milliseconds, one question after the other."""
    ask(questions[0])
    answers, times = [], []
    for question in questions:
        started = time.perf_counter()
        answers.append(ask(question))
        times.append(1000 * (time.perf_counter() - started))
    return answers, times
