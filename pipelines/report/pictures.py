"""Pictures for the page: read from shards, shrunk, and written as data: URIs.

Nothing here grows with the dataset: callers ask for a few keys, and a key costs at most one walk
over the headers of its own shard.
"""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.errors import DatasetError

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


def read_members(shard: Path, keys: Iterable[str]) -> dict[str, bytes]:
    """The encoded pictures of `keys` in a WebDataset tar; keys that it lacks are left out."""
    wanted = set(keys)
    found: dict[str, bytes] = {}
    with tarfile.open(shard, "r:") as archive:
        for member in archive:
            key, _, extension = member.name.rpartition(".")
            if key in wanted and extension.lower() in _EXTENSIONS:
                source = archive.extractfile(member)
                if source is not None:
                    found[key] = source.read()
                if len(found) == len(wanted):
                    break
    return found


def read_pictures(shard_paths: Mapping[str, Path]) -> dict[str, bytes]:
    """The encoded pictures of many keys, each shard opened once.

    Args:
        shard_paths: key -> the tar that holds it. A tar that is missing (a shard whose every
            download failed is never written) gives nothing.
    """
    by_shard: dict[Path, list[str]] = {}
    for key, path in shard_paths.items():
        by_shard.setdefault(path, []).append(key)
    found: dict[str, bytes] = {}
    for path, keys in sorted(by_shard.items()):
        if path.exists():
            found |= read_members(path, keys)
    return found


def _flat(opened):  # type: ignore[no-untyped-def]
    """RGB; transparent pictures over white, as browsers show them on a page."""
    from PIL import Image

    if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
        layer = opened.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return opened.convert("RGB")
