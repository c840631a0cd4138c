"""What an image processor makes of pictures, one at a time: side by side in threads, and kept.

transformers' processors take pictures and texts of a batch in one call, in one thread, and again
for every kind of caption. Here each picture is processed alone, and the processor that joins them
with their texts gets the features served (`FeatureServer`). Whether features of pictures put side
by side equal those of the batch depends on the architecture, so that is tried before it is used
(`serves_like`).
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from recaption.engines.pictures import decode

Features = Mapping[str, Any]
"""An image processor's output: tensors, or lists with one entry a picture."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, which stands for its features.

    Attributes:
        image: as the processor takes it; where features are known, only its size counts.
        features: of this picture alone; None where they are not known.
    """

    image: Image.Image
    features: Features | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.size


class FeatureServer:
    """Stands in a processor's place of the image processor and serves features made before.

    Not thread-safe: one batch at a time. All else is the image processor's own.
    """

    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor
        self._served: dict[int, Features] = {}
        self.options: dict[str, Any] = {}
        """What the processor asks its image processor for, as of the last batch."""
        self.nested = False
        """Whether the pictures of the last batch came as a list of lists, one a text."""
        self.missed = False
        """Whether a processor asked for other pictures than those it was given."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def serve(self, pictures: Sequence[Picture]) -> None:
        """Of the next batch."""
        known = all(picture.features is not None for picture in pictures)
        self._served = {id(p.image): p.features for p in pictures if p.features} if known else {}

    def __call__(self, images: Any, **options: Any) -> Any:
        self.nested = isinstance(images[0], list | tuple)
        self.options = options
        flat = [picture for row in images for picture in row] if self.nested else list(images)
        found = [self._served.get(id(picture)) for picture in flat]
        if not found or any(features is None for features in found):
            self.missed |= bool(self._served)
            return self._image_processor(images, **options)
        from transformers import BatchFeature

        return BatchFeature(side_by_side([features for features in found if features is not None]))


def side_by_side(features: Sequence[Features]) -> dict[str, Any]:
    """Features of a batch: tensors along their first dimension, filled up with zeros at the end of
    the others; lists one behind the other."""
    batch: dict[str, Any] = {}
    for name, first in features[0].items():
        parts = [some[name] for some in features]
        if not isinstance(first, torch.Tensor):
            batch[name] = [entry for part in parts for entry in part]
            continue
        rest = [max(sides) for sides in zip(*(part.shape[1:] for part in parts), strict=True)]
        if any(list(part.shape[1:]) != rest for part in parts):
            filled = [part.new_zeros((len(part), *rest)) for part in parts]
            for whole, part in zip(filled, parts, strict=True):
                whole[tuple(slice(side) for side in part.shape)] = part
            parts = filled
        batch[name] = torch.cat(parts)
    return batch


def alone(image_processor: Any, image: Image.Image, nested: bool, options: Features) -> Features:
    """Features of one picture."""
    return dict(image_processor([[image]] if nested else [image], **options))


def serves_like(server: FeatureServer, image_processor: Any) -> bool:
    """Whether features of single pictures, side by side, are those of a batch of them.

    Tried with two pictures of unlike size and shape, with the options of the last batch.
    """
    images = [Image.new("RGB", (64, 80), (200, 30, 90)), Image.new("RGB", (180, 50), (5, 90, 250))]
    try:
        batch = dict(
            image_processor([[i] for i in images] if server.nested else images, **server.options)
        )
        single = side_by_side(
            [alone(image_processor, image, server.nested, server.options) for image in images]
        )
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError):
        return False
    return batch.keys() == single.keys() and all(_same(batch[name], single[name]) for name in batch)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) != isinstance(other, torch.Tensor):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(list(one) == list(other))


class PictureCache:
    """Pictures that were processed, up to a number of bytes; safe among threads.

    A shard's pictures are captioned once a kind, and again where a caption is rejected. They
    pass in the same order each time, in which the oldest would always be forgotten just before it
    is asked for; so what makes room is drawn at random. Captions do not depend on it.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: dict[bytes, tuple[Picture, int]] = {}
        self._keys: list[bytes] = []
        self._draw = random.Random(0)
        self._lock = threading.Lock()

    def get(self, encoded: bytes) -> Picture | None:
        """The picture of these bytes."""
        with self._lock:
            found = self._kept.get(_name(encoded))
        return found[0] if found else None

    def put(self, encoded: bytes, picture: Picture) -> None:
        """Keep a picture whose features are known; its pixels are not kept."""
        assert picture.features is not None
        size = sum(part.nbytes for part in picture.features.values() if torch.is_tensor(part))
        if size > self._most_bytes:
            return
        # A picture without pixels, which still knows its size.
        kept = Picture(_Sized(picture.size), picture.features)
        name = _name(encoded)
        with self._lock:
            if name in self._kept:
                return
            while self._bytes + size > self._most_bytes:
                place = self._draw.randrange(len(self._keys))
                self._keys[place], self._keys[-1] = self._keys[-1], self._keys[place]
                self._bytes -= self._kept.pop(self._keys.pop())[1]
            self._kept[name] = (kept, size)
            self._keys.append(name)
            self._bytes += size


def _name(encoded: bytes) -> bytes:
    return hashlib.blake2b(encoded, digest_size=16).digest()


class _Sized(Image.Image):
    """An image that has a size and no pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self._size = size
        self._mode = "RGB"


def load(
    encoded: bytes, image_size: int, image_processor: Any, nested: bool, options: Features | None
) -> Picture:
    """Decode a picture, and process it where `options` are known.

    Raises:
        BrokenPictureError: as `recaption.engines.pictures.decode`.
    """
    image = decode(encoded, image_size)
    if options is None:
        return Picture(image)
    return Picture(image, alone(image_processor, image, nested, options))
