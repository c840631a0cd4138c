"""Which score tells pairs whose text is wrong: clip_similarity or negCLIPLoss, on known truth.

A synthetic web is curated with the world's own CLIP, as `caplab curate` does it, and scored as by
`caplab score --neg-clip-loss`. Truth: `text_matches` (the text says something true of the picture
and nothing false) of stored pairs with a text. AUC is the chance that a pair that fits is ranked
above one that does not. Beside the stored scores stands the paper's own procedure, batches that are
a random division of the dataset, as NumPy.

The web's wrong texts are of any other picture and easily told. `near` is harder: of the pairs that
fit, every other one is given the text of the nearest picture whose text is false of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.arrow_columns import to_numpy
from curate.base.settings import load_settings
from curate.scoring.scorers.clip import Clip
from curate.scoring.settings import ScoreSettings
from curate.scoring.whole.measures import normalisation
from curate.scoring.whole.settings import WholeSettings
from curate.scoring.whole.stage import WholeScoreStage
from curate.scoring.whole.temperature import temperature_of
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan
from pipelines.bench.common.figures import Figures, work_folder
from pipelines.world.facts import contradicts, facts
from pipelines.world.scene import Scene, WorldConfig

Floats = NDArray[np.float64]
TEMPERATURES = (0.01, 0.02, 0.1)
BATCHES = (64, 512)
_CLIP = ("clip_model", "clip_pretrained")


def pair_figures(out: Path | None, rows: int, seed: int) -> Figures:
    """AUC of every score on a web of `rows` URLs."""
    folder = work_folder(out)
    dataset = _curated(folder, rows, seed)
    figures = Figures("pairs")
    table, truth = _pairs(dataset, folder / "world" / "truth.parquet")
    figures.add("stored_with_text", len(truth), "pairs")
    figures.add("wrong_texts", int((~truth).sum()), "pairs")
    similarity = to_numpy(table.column("clip_similarity")).astype(np.float64)
    figures.add("auc/clip_similarity", auc(similarity, truth), "")
    image, text = (to_numpy(table.column(name)) for name in ("image", "text"))
    wrong = _near_texts(table, truth, image)
    near = (image[truth], text[wrong], np.arange(len(wrong)))
    kept = wrong == np.flatnonzero(truth)
    near_similarity = np.einsum("bd,bd->b", *near[:2]).astype(np.float64)
    figures.add("auc/near/clip_similarity", auc(near_similarity, kept), "")
    made_with = dataset.record()["settings"]
    clip = load_settings(ScoreSettings, None, {name: made_with[name] for name in _CLIP})
    for temperature in (temperature_of(Clip.of(clip)[0]), *TEMPERATURES):
        name = f"temperature_{temperature:.3g}"
        shared = normalisation(near[0], near[1], near[:2], near[2], temperature)
        figures.add(f"auc/near/{name}/all", auc(near_similarity - shared, kept), "")
        for size in BATCHES:
            stage = WholeScoreStage(
                WholeSettings(neg_clip_loss=f"{temperature}", neg_clip_batch=size), clip
            )
            stage.prepare(dataset)
            for shard in dataset.shards():
                stage.run(dataset, shard)
            stored = _column(dataset, table, "neg_clip_loss")
            by_paper = divided(image, text, temperature, size, 10, seed)
            paper = ("random divisions", auc(by_paper, truth))
            figures.add(f"auc/{name}/batch_{size}", auc(stored, truth), "", paper)
            figures.add(f"rank/{name}/batch_{size}", _rank(stored, by_paper), "Spearman")
    return figures


def auc(scores: Floats, good: NDArray[np.bool_]) -> float:
    """The chance that a good one is above a bad one; half for a tie."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    count = int(good.sum())
    above = ranks[good].sum() - count * (count + 1) / 2
    return float(above / (count * (len(good) - count)))


def divided(
    image: NDArray[Any], text: NDArray[Any], temperature: float, size: int, times: int, seed: int
) -> Floats:
    """negCLIPLoss of N pairs as Wang et al. write it: the mean over random divisions of them."""
    random = np.random.default_rng(seed)
    total = np.zeros(len(image))
    for _ in range(times):
        order = random.permutation(len(image))
        for batch in np.array_split(order, max(1, round(len(order) / size))):
            products = image[batch].astype(np.float64) @ text[batch].T.astype(np.float64)
            shared = _log_sum(products / temperature, 1) + _log_sum(products / temperature, 0)
            total[batch] += np.diag(products) - temperature / 2 * shared
    return total / times


def _log_sum(values: Floats, axis: int) -> Floats:
    top = values.max(axis=axis, keepdims=True)
    summed = np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
    return np.asarray(summed)


def _rank(a: Floats, b: Floats) -> float:
    first, second = (np.argsort(np.argsort(values)) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def _curated(folder: Path, rows: int, seed: int) -> Dataset:
    from pipelines.commands.curate import curate
    from pipelines.demo.demo import curate_settings
    from pipelines.demo.settings import DemoSettings
    from pipelines.world.serve import serve
    from pipelines.world.web import build_web, write_urls

    world, dataset = folder / "world", folder / "dataset"
    if not (dataset / "selections").exists():
        build_web(world, WorldConfig.small(), rows, seed)
        settings = curate_settings(DemoSettings(rows=rows, seed=seed, workers=1, runner="local"))
        with serve(world) as base:
            write_urls(world, base)
            curate(world / "urls.parquet", dataset, settings)
    return Dataset.open(dataset)


def _pairs(dataset: Dataset, truth: Path) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Key, similarity and embeddings of stored pairs with a text, and whether the text fits."""
    connection = dataset.connect()
    table = connection.sql(
        "SELECT key, clip_similarity, image, text, text_matches, scene, samples.alt_text FROM "
        "samples JOIN scores USING (key) JOIN embeddings USING (key) JOIN (SELECT text_matches, "
        f"scene, file_row_number AS row FROM {parquet_scan(truth, file_row_number=True)}) "
        "USING (row) WHERE status = 'stored' AND clip_similarity IS NOT NULL ORDER BY key"
    ).to_arrow_table()
    return table, to_numpy(table.column("text_matches")).astype(bool)


def _near_texts(
    table: pa.Table, fits: NDArray[np.bool_], image: NDArray[np.float32]
) -> NDArray[np.int64]:
    """The row whose text each pair that fits is given: its own, or of every other one a near one.

    A pair that no text of the 50 nearest contradicts keeps its own.
    """
    rows = np.flatnonzero(fits)
    scenes = [Scene.from_json(scene) for scene in table.column("scene").take(rows).to_pylist()]
    stated = [facts(text) for text in table.column("alt_text").take(rows).to_pylist()]
    nearest = np.argsort(-(image[rows] @ image[rows].T), axis=1)[:, 1:51]
    given = np.arange(len(rows))
    for row in range(0, len(rows), 2):
        false = (at for at in nearest[row] if contradicts(stated[at], scenes[row]))
        given[row] = next(false, row)
    return rows[given]


def _column(dataset: Dataset, table: pa.Table, name: str) -> Floats:
    found = dict(dataset.connect(["scores"]).execute(f"SELECT key, {name} FROM scores").fetchall())
    keys: Sequence[str] = table.column("key").to_pylist()
    return np.array([found[key] for key in keys], np.float64)
