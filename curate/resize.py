"""From the bytes of a stranger's file to the picture that is stored.

This takes the place of img2dataset's Resizer, which ignores the EXIF orientation and strips its tag
(photographs lie on their side for good), saturates 16-bit PNGs to white, keeps no original size on
a refusal, and decodes every JPEG in full. Here a picture is stored upright, in sRGB, 8 bits a
channel, on white where it was transparent, without metadata; a JPEG is decoded at a reduced DCT
scale where that still leaves twice the wanted size; a file that is broken or cut short is refused.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from curate.colours import PixelRangeError, to_resizable, to_srgb
from curate.exif import orientation, upright
from curate.hashes import verify
from curate.png_chunks import damaged_pixel_data
from curate.reasons import Failure, FailureError, Reason
from curate.sniff import sniff

ResizeMode = Literal["keep_ratio_largest", "keep_ratio", "center_crop", "no"]
EncodeFormat = Literal["jpg", "png", "webp"]

_PILLOW_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
# A JPEG is decoded at the smallest DCT scale that leaves at least this times the wanted size; the
# filter below then still works on more detail than it keeps.
_DRAFT_MARGIN = 2
# What is still larger is averaged by whole factors to no less than this times the wanted size, then
# filtered (Pillow's reducing_gap). Against a full decode and Lanczos, photographs scaled to 256 px
# come to 44 dB; img2dataset's area filter comes to 38 to 40 dB.
_REDUCING_GAP = 1.5
# Each scan of a progressive JPEG goes over the whole picture; real ones have about ten.
_MOST_SCANS = 100
_START_OF_SCAN = b"\xff\xda"


@dataclass(frozen=True)
class StoredImage:
    """A picture as it will stand in the shard, and what is known of the file that it came from."""

    content: bytes
    format: str  # extension in the shard: "jpg", "png" or "webp"
    width: int  # pixels
    height: int
    original_width: int  # pixels, upright
    original_height: int
    original_format: str  # "jpeg", "png", ...: sniffed from the bytes
    original_bytes: int
    sha256: str  # of the original file, hex


class Resizer:
    """Stores pictures of one size, mode and format. Safe to use from many threads."""

    def __init__(
        self,
        image_size: int = 512,
        resize_mode: ResizeMode = "keep_ratio_largest",
        encode_format: EncodeFormat = "jpg",
        encode_quality: int = 95,
        upscale: bool = False,
        max_pixels: int = 64_000_000,
        min_side: int = 0,
        max_aspect: float | None = None,
    ) -> None:
        """Set what is wanted.

        Args:
            image_size: pixels of the side that `resize_mode` names.
            resize_mode: "keep_ratio_largest" (longer side), "keep_ratio" (shorter side),
                "center_crop" (shorter side, then the centre square) or "no".
            encode_quality: 1 to 100 for jpg and webp; png is lossless and ignores it.
            upscale: enlarge pictures that are smaller; otherwise they keep their size.
            max_pixels: width times height of the original, read before anything is decoded.
                Peak memory is about 10 bytes a pixel.
            min_side: shortest side, in pixels, that is stored.
            max_aspect: greatest longer side / shorter side that is stored; None stores all.
        """
        self.image_size = image_size
        self.resize_mode = resize_mode
        self.encode_format = encode_format
        self.encode_quality = encode_quality
        self.upscale = upscale
        self.max_pixels = max_pixels
        self.min_side = min_side
        self.max_aspect = max_aspect

    def outcome(
        self, content: bytes, expected: Mapping[str, str | None] | None = None
    ) -> StoredImage | Failure:
        """The stored picture, or why there is none with what is known of the file.

        Every way in goes through here, downloads and local files alike. Nothing is raised, whatever
        the bytes are.

        Args:
            expected: hex digits that the list gives, by "md5", "sha256" and "sha512".
        """
        try:
            verify(content, expected or {})
            return self.store(content)
        except FailureError as error:
            return replace(
                error.failure,
                original_format=sniff(content),
                original_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )

    def store(self, content: bytes) -> StoredImage:
        """Decode, turn upright, resize, convert to sRGB and encode again.

        Raises:
            FailureError: not_an_image, broken_image, unsupported_image, too_many_pixels,
                too_small or aspect.
        """
        original_format = sniff(content)
        if original_format is None:
            raise FailureError(Reason.NOT_AN_IMAGE, _first_bytes(content))
        if original_format == "jpeg" and content.count(_START_OF_SCAN) > _MOST_SCANS:
            raise FailureError(Reason.BROKEN_IMAGE, f"more than {_MOST_SCANS} JPEG scans")
        damage = damaged_pixel_data(content) if original_format == "png" else None
        if damage:
            raise FailureError(Reason.BROKEN_IMAGE, damage)
        # Decoders raise whatever they like on hostile bytes (OSError, SyntaxError, struct.error,
        # KeyError, TypeError, ...); each of them means that the file is broken.
        quiet = _silent_stderr() if original_format == "tiff" else nullcontext()
        try:
            with quiet:
                small, size = self._decode(content, original_format)
            encoded = self._encode(small)
        except (FailureError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise FailureError(Reason.TOO_MANY_PIXELS, error) from error
        except PixelRangeError as error:
            raise FailureError(Reason.UNSUPPORTED_IMAGE, error) from error
        except Exception as error:
            raise FailureError(Reason.BROKEN_IMAGE, f"{type(error).__name__}: {error}") from error
        return StoredImage(
            content=encoded,
            format=self.encode_format,
            width=small.width,
            height=small.height,
            original_width=size[0],
            original_height=size[1],
            original_format=original_format,
            original_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    def _decode(self, content: bytes, original_format: str) -> tuple[Image.Image, tuple[int, int]]:
        """The picture at its stored size, RGB, upright; and the original's size, upright."""
        with Image.open(io.BytesIO(content), formats=[original_format.upper()]) as image:
            size = image.size
            # Sizes in the header decide before anything is decoded: this stops bombs.
            self._check_size(_turned(size, orientation(image.info)))
            box: tuple[float, float, float, float] | None = None
            if isinstance(image, JpegImageFile):
                margin_width, margin_height = (_DRAFT_MARGIN * side for side in self._scaled(size))
                drafted = image.draft(None, (margin_width, margin_height))
                box = drafted[1] if drafted else None
            # Exactly once: a broken PNG raises on its first load and passes on a second one.
            image.load()
            if box is None:
                size = image.size  # a TIFF turns itself while it loads
                box = (0, 0, *size)
            turn = orientation(image.info)  # again: in a PNG it may stand behind the pixels
            small = self._resize(to_resizable(image), size, box)
            small = to_srgb(small, image.info.get("icc_profile"))
        return upright(small, turn), _turned(size, turn)

    def _check_size(self, size: tuple[int, int]) -> None:
        shown = f"{size[0]} x {size[1]} pixels"
        shorter, longer = min(size), max(size)
        if shorter < 1:
            raise FailureError(Reason.BROKEN_IMAGE, shown)
        if shorter * longer > self.max_pixels:
            raise FailureError(Reason.TOO_MANY_PIXELS, shown, size)
        if shorter < self.min_side:
            raise FailureError(Reason.TOO_SMALL, shown, size)
        if self.max_aspect is not None and longer > self.max_aspect * shorter:
            raise FailureError(Reason.ASPECT, shown, size)

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size after scaling and before cropping."""
        if self.resize_mode == "no":
            return size
        side = max(size) if self.resize_mode == "keep_ratio_largest" else min(size)
        scale = self.image_size / side
        if scale >= 1 and not self.upscale:
            return size
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _resize(
        self,
        image: Image.Image,
        size: tuple[int, int],
        box: tuple[float, float, float, float],
    ) -> Image.Image:
        """Scale (and crop) in one step.

        Args:
            image: the decoded picture, possibly at a reduced scale.
            size: of the original, not turned.
            box: the part of `image` that shows the original (JPEG scales round up).
        """
        target = self._scaled(size)
        if self.resize_mode == "center_crop":
            target, box = _crop_square(target, box, self.image_size)
        if target == image.size and box == (0, 0, *image.size):
            return image
        return image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=_REDUCING_GAP)

    def _encode(self, image: Image.Image) -> bytes:
        # Pillow copies comments, profiles and the like from `info` into what it saves.
        image.info = {}
        options: dict[str, int] = (
            {} if self.encode_format == "png" else {"quality": self.encode_quality}
        )
        buffer = io.BytesIO()
        image.save(buffer, _PILLOW_FORMATS[self.encode_format], **options)
        return buffer.getvalue()


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: libtiff writes pages of warnings to it, past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Orientations 5 to 8 swap width and height."""
    return (size[1], size[0]) if turn >= 5 else size


def _crop_square(
    target: tuple[int, int], box: tuple[float, float, float, float], wanted: int
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """The centre square of at most `wanted` pixels: its size, and its place in the source."""
    side = min(*target, wanted)
    left, top, right, bottom = box
    margin_x = (right - left) * (target[0] - side) / (2 * target[0])
    margin_y = (bottom - top) * (target[1] - side) / (2 * target[1])
    return (side, side), (left + margin_x, top + margin_y, right - margin_x, bottom - margin_y)


def _first_bytes(content: bytes) -> str:
    """What came instead of a picture, for a person."""
    start = content[:256].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "HTML"
    return f"starts with {content[:16]!r}"
