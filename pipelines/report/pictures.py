"""Pictures for the page: read from shards, shrunk, and written as data: URIs.

Nothing here grows with the dataset: callers ask for a few keys, and a key costs at most one walk
over the headers of its own shard.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.base.errors import DatasetError
from curate.store.shards import member_places

# Pictures up to this many pixels a side are shown pixel by pixel, magnified by a whole number.
TINY = 64
THUMBNAIL = 176
JPEG_QUALITY = 80
_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class Picture:
    """An inlined picture. `width` and `height` are CSS pixels; `tiny` ones are not smoothed."""

    uri: str
    width: int
    height: int
    alt: str
    tiny: bool


def thumbnail(encoded: bytes, alt: str, side: int = THUMBNAIL) -> Picture:
    """A picture that fits a box of `side` x `side` CSS pixels.

    A picture of at most 64 pixels keeps its own pixels as PNG and is magnified by the browser by
    a whole factor (nearest neighbour); a larger one is shrunk and written as JPEG.

    Raises:
        DatasetError: `encoded` is no picture that Pillow reads.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            opened.draft("RGB", (2 * side, 2 * side))
            picture = _flat(opened)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DatasetError(f"A stored picture ({alt[:60]!r}) cannot be read: {error}.") from error
    longest = max(picture.size)
    tiny = longest <= TINY
    buffer = io.BytesIO()
    if tiny:
        factor = max(side // longest, 1)
        shown = (picture.width * factor, picture.height * factor)
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        # Twice the shown size would be crisper on fine screens and four times the bytes.
        scale = min(side / longest, 1.0) * 1.25
        shown = tuple(max(round(edge * min(side / longest, 1.0)), 1) for edge in picture.size)
        small = tuple(max(round(edge * min(scale, 1.0)), 1) for edge in picture.size)
        picture.resize(small, Image.Resampling.LANCZOS).save(  # type: ignore[arg-type]
            buffer, "JPEG", quality=JPEG_QUALITY, optimize=True
        )
        kind = "jpeg"
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/{kind};base64,{data}", shown[0], shown[1], alt, tiny)


class ShardPictures:
    """The encoded pictures of WebDataset tars, by key; every tar's headers are walked once."""

    def __init__(self) -> None:
        self._places: dict[Path, dict[str, tuple[int, int]]] = {}

    def read(self, shard_paths: Mapping[str, Path]) -> dict[str, bytes]:
        """The pictures of many keys.

        Args:
            shard_paths: key -> the tar that holds it. A tar that is missing (a shard whose every
                download failed is never written) or lacks the key gives nothing.
        """
        found: dict[str, bytes] = {}
        for path in sorted(set(shard_paths.values())):
            if not path.exists():
                continue
            places = self._places.setdefault(path, {}) or self._index(path)
            with open(path, "rb") as archive:
                for key, own in shard_paths.items():
                    if own == path and key in places:
                        start, size = places[key]
                        archive.seek(start)
                        found[key] = archive.read(size)
        return found

    def _index(self, path: Path) -> dict[str, tuple[int, int]]:
        """Key -> first byte and size of its picture."""
        places = {}
        for name, start, size in member_places(path):
            key, _, extension = name.rpartition(".")
            if extension.lower() in _EXTENSIONS:
                places[key] = (start, size)
        self._places[path] = places
        return places


def _flat(opened):  # type: ignore[no-untyped-def]
    """RGB; transparent pictures over white, as browsers show them on a page."""
    from PIL import Image

    if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
        layer = opened.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return opened.convert("RGB")
