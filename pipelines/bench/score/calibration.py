"""Scores of files and pictures against what the synthetic world knows of them.

    jpeg_quality       told against the quality that a file was saved with
    bytes_per_pixel    how well it tells files saved at 50 or less from those at 85 or more
    pdq                what `--hash-list` finds of edited copies, and of other pictures
                       (found_turned: with `--hash-turned`)
    models             every score of the settings (`--classifier`, `--ask`, `--text-area`,
                       `--face-area`): how well it tells pictures with a planted mark from the same
                       without, as the area under the ROC curve (0.5: not at all)

The marks are those of pipelines.world.defects: a sticker, a label with a line of text, and what
spoils a picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.pictures.decode import decode_batch
from curate.pictures.jpeg_quality import jpeg_quality
from curate.pictures.pdq import WORST_QUALITY, PdqIndex, pdq_hash, turned_hashes
from curate.scoring.models.areas import Area
from curate.scoring.models.ask import Ask
from curate.scoring.scorers.classifier import ImageClassifier, LaionWatermark
from curate.scoring.settings import ScoreSettings
from pipelines.bench.common.figures import Figure, Figures
from pipelines.world.defects import NEAR, UGLY, overlay, sticker
from pipelines.world.render import render
from pipelines.world.scene import WorldConfig
from pipelines.world.web import distinct_scenes

Pictures = NDArray[np.uint8]
SIDE = 256  # pixels
_BATCH = 64
_MODELS: tuple[Any, ...] = (ImageClassifier, LaionWatermark, Ask, Area)


def calibration_figures(count: int, settings: ScoreSettings, seed: int = 0) -> list[Figure]:
    """The figures of `count` scenes drawn at 256 px, of which half are listed.

    Raises:
        ConfigError: a model of the settings that is not there.
    """
    scorers = [scorer for kind in _MODELS for scorer in kind.of(settings)]
    config = WorldConfig()
    pictures = np.asarray(render(distinct_scenes(config, count, seed), config, SIDE))
    figures = Figures("calibration")
    of_files(figures, pictures, np.random.default_rng([seed, 1]))
    of_pdq(figures, pictures, seed)
    for scorer in scorers:
        of_model(figures, scorer, pictures, seed)
    return figures


def of_files(figures: Figures, pictures: Pictures, random: np.random.Generator) -> None:
    """Qualities told against those of saving, once and after an earlier, worse time."""
    for name, before in (("once", None), ("after_40_to_60", (40, 61))):
        qualities = random.integers(20, 100, len(pictures))
        told, sizes = [], []
        for picture, quality in zip(pictures, qualities, strict=True):
            if before is not None:
                stream = io.BytesIO(_jpeg(picture, int(random.integers(*before))))
                picture = np.asarray(Image.open(stream).convert("RGB"))
            content = _jpeg(picture, int(quality))
            told.append(jpeg_quality(content) or 0)
            sizes.append(len(content) / picture[..., 0].size)
        off = np.abs(np.array(told) - qualities)
        figures.add(f"jpeg_quality/saved_{name}/exact", float((off == 0).mean()), "share")
        figures.add(f"jpeg_quality/saved_{name}/furthest", float(off.max()), "steps")
        low, high = (np.array(sizes)[part] for part in (qualities <= 50, qualities >= 85))
        area = under_curve(-low, -high)
        figures.add(f"bytes_per_pixel/saved_{name}/auc_of_50_against_85", area, "share")


def of_pdq(figures: Figures, pictures: Pictures, seed: int) -> None:
    """The first half is listed: what is found of its copies, and of the second half."""
    hashes, qualities = zip(*(pdq_hash(picture) for picture in pictures), strict=True)
    usable = np.array(qualities) >= WORST_QUALITY
    half = len(pictures) // 2
    figures.add("pdq/pictures_too_plain_to_tell", float((~usable).mean()), "share")
    listed: list[int] = np.flatnonzero(usable[:half]).tolist()
    if not listed:
        return
    index = PdqIndex(np.stack([hashes[row] for row in listed]))
    for name, edit in NEAR.items():
        edited = [edit(pictures[row], np.random.default_rng([seed, 2, row])) for row in listed]
        figures.add(f"pdq/found/{name}", _share_near(index, edited), "share")
        if name == "mirror":
            figures.add("pdq/found_turned/mirror", _share_near(index, edited, True), "share")
    others = list(pictures[half:])
    figures.add("pdq/found/pictures_not_listed", _share_near(index, others), "share")
    figures.add("pdq/found_turned/pictures_not_listed", _share_near(index, others, True), "share")


def of_model(figures: Figures, scorer: Any, pictures: Pictures, seed: int) -> None:
    """Its score of plain pictures and of the same with each mark."""
    scorer.open()
    plain = scores_of(scorer, pictures)
    figures.add(f"{scorer.name}/plain/median", float(np.nanmedian(plain)), "score")
    marks: dict[str, Callable[..., Pictures]] = {"sticker": sticker, "text": overlay, **UGLY}
    for name, mark in marks.items():
        marked = np.stack(
            [mark(one, np.random.default_rng((seed, 3, row))) for row, one in enumerate(pictures)]
        )
        found = scores_of(scorer, marked)
        figures.add(f"{scorer.name}/{name}/median", float(np.nanmedian(found)), "score")
        figures.add(f"{scorer.name}/{name}/auc", under_curve(found, plain), "share")


def scores_of(scorer: Any, pictures: Pictures) -> NDArray[np.float64]:
    """The scorer's own column of N pictures, (N,); NaN where it has none."""
    ((name, view),) = scorer.views().items()
    parts = []
    for start in range(0, len(pictures), _BATCH):
        files = [(str(row), _png(one)) for row, one in enumerate(pictures[start : start + _BATCH])]
        batch = decode_batch(files, view)
        columns = {name: batch.picture, "pixel_sha256": batch.pixel_sha256}
        parts.append(np.asarray(scorer.score(columns)[scorer.name], np.float64))
    return np.concatenate(parts)


def under_curve(positive: Sequence[float] | Any, negative: Sequence[float] | Any) -> float:
    """Area under the ROC curve: the chance that one of `positive` is above one of `negative`,
    a tie counting half; NaN where either has no number."""
    high, low = (np.asarray(some, np.float64) for some in (positive, negative))
    high, low = high[np.isfinite(high)], np.sort(low[np.isfinite(low)])
    if not (len(high) and len(low)):
        return float("nan")
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.mean() / 2 / len(low))


def _share_near(index: PdqIndex, pictures: Sequence[Pictures], turned: bool = False) -> float:
    """Share of pictures of which a hash is near a listed one, as `--hash-list` has it."""
    near = []
    for picture in pictures:
        hashes, quality = turned_hashes(picture)
        some = hashes if turned else hashes[:1]
        near.append(quality >= WORST_QUALITY and any(index.nearest(h) is not None for h in some))
    return float(np.mean(near))


def _jpeg(picture: Pictures, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _png(picture: Pictures) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
