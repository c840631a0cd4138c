"""The contact sheet of `caplab train --dry-run`: what the model will see, step by step.

One HTML file that holds no script and loads nothing: the buckets with their counts, and the first
batches of the run itself, picture by picture as it is cropped and flipped, with its caption as it
was drawn and as the text encoder reads it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from curate.base.files import write_text
from curate.base.telling.words import amount
from pipelines.report.page import Page
from pipelines.report.palette import Palette
from pipelines.report.pictures import Picture, thumbnail
from train.settings import TrainSettings, seed_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from curate.store.dataset import Dataset
    from train.data.captions import CaptionDraws
    from train.data.index import TrainingIndex
    from train.data.order import DataOrder
    from train.data.pictures import TarPictures

BATCHES, PICTURES = 4, 12
"""Batches that are shown, and pictures of each."""
_LOOKED_AT = 256  # batches among which one of each bucket is looked for


class Reader(Protocol):
    """The side of a text encoder that reads texts."""

    def cut(self, texts: Sequence[str]) -> NDArray[np.bool_]: ...

    def pieces(self, text: str) -> list[str]: ...


@dataclass(frozen=True)
class BucketCount:
    """A shape of batches."""

    width: int
    height: int
    pictures: int
    share: float


@dataclass(frozen=True)
class Seen:
    """One picture of a batch."""

    picture: Picture
    key: str
    kind: str
    instead_of: str
    """The kind that was drawn, where the picture lacks it."""
    sample_index: int
    dropped: bool
    read: str
    """What the text encoder reads of the caption ..."""
    unread: str
    """... and its end, where the window is too short."""
    pieces: list[str]
    geometry: str
    conditions: list[tuple[str, str]]
    weight: float


@dataclass(frozen=True)
class SeenBatch:
    """The first pictures of one batch."""

    step: int
    of: int
    width: int
    height: int
    pictures: list[Seen]


@dataclass(frozen=True)
class Shown:
    """What a run draws its batches from; pictures come from the tars, also where caches lie."""

    index: TrainingIndex
    order: DataOrder
    draws: CaptionDraws
    pictures: TarPictures


def write_sheet(
    target: Path, dataset: Dataset, index: TrainingIndex, reader: Reader, settings: TrainSettings
) -> None:
    """Write the sheet of a run that would train on `index`.

    Costs the pictures that are shown, whatever the dataset's size.

    Args:
        reader: the model's text encoder, or its tokenizer alone.
    """
    from train.data.captions import CaptionDraws
    from train.data.index import index_folder
    from train.data.order import DataOrder
    from train.data.pictures import TarPictures, Tars

    seed, block = seed_of(settings, "data"), settings.shuffle_block
    tars = Tars(dataset, index_folder(dataset, settings), settings.shards_from)
    data = Shown(
        index,
        DataOrder(index.buckets, settings.batch_size, seed, block, index.weights),
        CaptionDraws(index, settings),
        TarPictures(tars, index, seed, settings.crop, settings.flip),
    )
    buckets = bucket_counts(data)
    batches = [
        seen_batch(data, reader, settings, step) for step in steps_to_show(data, settings.steps)
    ]
    page = Page(Palette(data.draws.kinds))
    shown = page.section(
        "sheet_batches",
        "Batches",
        batches=batches,
        kinds=data.draws.kinds,
        dropout=settings.prompt_dropout_prob,
        shuffled=settings.tag_shuffle,
    )
    shapes = page.section("sheet_buckets", "Buckets", buckets=buckets, batch=settings.batch_size)
    title = "What the model will see"
    pictures, steps = amount(len(data.index), "training picture"), amount(settings.steps, "step")
    write_text(
        target,
        page.document(title, f"{pictures}, {steps} of {settings.batch_size}", [shown, shapes]),
    )


def bucket_counts(data: Shown) -> list[BucketCount]:
    """The buckets, largest first."""
    total = max(len(data.index), 1)
    counts = [
        BucketCount(one.width, one.height, one.stop - one.start, (one.stop - one.start) / total)
        for one in data.index.buckets
    ]
    return sorted(counts, key=lambda bucket: -bucket.pictures)


def steps_to_show(data: Shown, steps: int) -> list[int]:
    """The first batch of each bucket among the first ones; the very first where there is one."""
    first: dict[int, int] = {}
    for step in range(min(steps, _LOOKED_AT)):
        rows, _ = data.order.batch(step)
        first.setdefault(bucket_of(data, int(rows[0])), step)
        if len(first) == min(len(data.index.buckets), BATCHES):
            break
    found = sorted(first.values())
    others = [step for step in range(min(steps, BATCHES)) if step not in found]
    return sorted([*found, *others][:BATCHES])


def bucket_of(data: Shown, row: int) -> int:
    """Number of the bucket that holds a row."""
    return next(i for i, bucket in enumerate(data.index.buckets) if row < bucket.stop)


def seen_batch(data: Shown, reader: Reader, settings: TrainSettings, step: int) -> SeenBatch:
    """One batch as the run will draw it."""
    rows, epochs = data.order.batch(step)
    whole = len(rows)
    rows, epochs = rows[:PICTURES], epochs[:PICTURES]
    drawn = data.draws.draw(rows, epochs)
    x, size_ids = data.pictures.read(rows, epochs)
    told = data.draws.conditions(rows, epochs)
    keys, weights = data.index.keys(rows), data.index.loss_weights(rows)
    bucket = data.index.buckets[bucket_of(data, int(rows[0]))]
    cut = reader.cut(drawn.texts)
    pictures = []
    for i, text in enumerate(drawn.texts):
        read, unread = split_at_window(reader, text) if cut[i] else (text, "")
        kind, wanted = (data.draws.kinds[int(own[i])] for own in (drawn.kind, drawn.wanted))
        pictures.append(
            Seen(
                picture=_picture(x[i].numpy(), f"training picture {keys[i]}"),
                key=keys[i],
                kind=kind,
                instead_of=wanted if wanted != kind else "",
                sample_index=int(drawn.sample_index[i]),
                dropped=bool(drawn.dropped[i]),
                read=read,
                unread=unread,
                pieces=reader.pieces(text),
                geometry=_geometry(size_ids[i].tolist()),
                conditions=_conditions(data, told[i], settings),
                weight=float(weights[i]),
            )
        )
    return SeenBatch(step, whole, bucket.width, bucket.height, pictures)


def split_at_window(reader: Reader, text: str) -> tuple[str, str]:
    """The longest beginning of whole words that fits the window, and the rest.

    A text of n words is asked about log2(n) times.
    """
    ends = [i for i, letter in enumerate(text) if letter.isspace()]
    low, high = 0, len(ends)  # the beginning up to ends[low - 1] fits; nothing for low = 0
    while low < high:
        middle = (low + high) // 2
        if reader.cut([text[: ends[middle]]])[0]:
            high = middle
        else:
            low = middle + 1
    end = ends[low - 1] if low else 0
    return text[:end], text[end:]


def _picture(array: NDArray[Any], alt: str) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return thumbnail(buffer.getvalue(), alt)


def _geometry(size_ids: Sequence[float]) -> str:
    height, width, top, left, _, _ = (round(value) for value in size_ids)
    place = f", cut {left} from the left and {top} from the top" if left or top else ""
    return f"stored as {width} x {height}{place}"


def _conditions(
    data: Shown, told: NDArray[np.int64], settings: TrainSettings
) -> list[tuple[str, str]]:
    count = settings.condition_buckets
    return [
        (name, f"{bucket} of {count}" if bucket else "not told")
        for name, bucket in zip(data.index.condition_columns, told.tolist(), strict=True)
    ]
