"""From the bytes of a stranger's file to the picture that is stored.

A picture is stored upright, in sRGB, 8 bits a channel, on white where it was transparent, without
metadata, beside the original's size and sha256; a JPEG is decoded at a reduced DCT scale where that
still leaves 1.5 times the wanted size; a file that is broken or cut short is refused.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.base.reasons import Failure, FailureError, Reason
from curate.pictures import jpeg
from curate.pictures.colours import PixelRangeError, to_resizable, to_srgb
from curate.pictures.exif import orientation, upright_pixels
from curate.pictures.file_hashes import verify
from curate.pictures.hash_list import hash_list
from curate.pictures.jpeg_quality import jpeg_quality
from curate.pictures.png_chunks import damaged_pixel_data, without_texts
from curate.pictures.settings import PictureSettings
from curate.pictures.shrink import shrink
from curate.pictures.sniff import sniff, sniff_unsupported

Pixels = NDArray[np.uint8]

_PILLOW_FORMATS = {"png": "PNG", "webp": "WEBP"}
# A JPEG is decoded at the smallest DCT scale that leaves at least this times the wanted size; the
# filter behind it then still works on more detail than it keeps. At 256 px, 2 costs a fifth more
# CPU for half a dB, and 1.25 falls below what img2dataset stores.
_DECODE_MARGIN = 1.5
# Pictures that Pillow resizes (with transparency, or in CMYK) are averaged by whole factors to no
# less than this times the wanted size, then filtered.
_REDUCING_GAP = 1.5
# Each scan of a progressive JPEG goes over the whole picture; real ones have about ten.
_MOST_SCANS = 100
_HASHED_SIDE = 256  # pixels of the longer side that a perceptual hash is taken of at least
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
    jpeg_quality: int | None = None  # of the original, see curate.pictures.jpeg_quality


class Resizer:
    """Stores pictures of one size, mode and format. Safe to use from many threads."""

    def __init__(self, settings: PictureSettings | None = None) -> None:
        """Keep what is wanted; None: the settings' defaults.

        Raises:
            ConfigError: a hash list that cannot be read.
        """
        self.settings = settings or PictureSettings()
        wanted = self.settings
        self._never = hash_list(wanted.hash_list, wanted.hash_distance, wanted.hash_turned)

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
            if self._never is not None:
                self._never.check_bytes(content)
            return self.store(content)
        except FailureError as error:
            return replace(
                error.failure,
                original_format=sniff(content) or sniff_unsupported(content),
                original_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )

    def store(self, content: bytes) -> StoredImage:
        """Decode, turn upright, resize, convert to sRGB and encode again.

        Raises:
            FailureError: not_an_image, unsupported_format, broken_image, unsupported_image,
                too_many_pixels, too_small, aspect or listed_hash.
        """
        original_format = _format_of(content)
        with _damage_told():
            small, size = self._decoded(content, original_format)
            if self._never is not None and self._never.sees:
                self._never.check_pixels(self._whole(content, small))
            encoded = self._encode(small)
        return StoredImage(
            content=encoded,
            format=self.settings.encode_format,
            width=small.shape[1],
            height=small.shape[0],
            original_width=size[0],
            original_height=size[1],
            original_format=original_format,
            original_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            jpeg_quality=jpeg_quality(content) if original_format == "jpeg" else None,
        )

    def check_listed(self, content: bytes) -> None:
        """Raise FailureError (listed_hash) for what is on the hash list; nothing else is raised."""
        if self._never is None:
            return
        self._never.check_bytes(content)
        if self._never.sees:
            try:
                pixels = self.pixels(content)
            except FailureError:
                return  # whoever stores it will say what is wrong
            self._never.check_pixels(pixels)

    def pixels(self, content: bytes) -> Pixels:
        """(H, W, 3) sRGB as it would be stored, before it is encoded; raises as `store`."""
        with _damage_told():
            return self._decoded(content, _format_of(content))[0]

    def _whole(self, content: bytes, small: Pixels) -> Pixels:
        """The whole picture, large enough for its perceptual hash."""
        cropped = self.settings.resize_mode in ("center_crop", "border")
        if not cropped and self.settings.image_size >= _HASHED_SIDE:
            return small
        plain = PictureSettings(image_size=_HASHED_SIDE, max_pixels=self.settings.max_pixels)
        return Resizer(plain).pixels(content)

    def _decoded(self, content: bytes, original_format: str) -> tuple[Pixels, tuple[int, int]]:
        """The picture at its stored size, upright, and the original's size."""
        if original_format == "jpeg":
            return self._jpeg(content)
        return self._other(content, original_format)

    def _jpeg(self, content: bytes) -> tuple[Pixels, tuple[int, int]]:
        """The picture at its stored size, (H, W, 3) sRGB, upright; and the original's size."""
        header = jpeg.read_header(content)
        if header.progressive and content.count(_START_OF_SCAN) > _MOST_SCANS:
            raise FailureError(Reason.BROKEN_IMAGE, f"more than {_MOST_SCANS} JPEG scans")
        size = (header.width, header.height)
        turned = _turned(size, header.orientation)
        self._check_size(turned)
        if header.components == 4:
            # Pillow knows how Adobe's CMYK is meant, and nothing of damage.
            with suppress(jpeg.UncommonJpegError):
                jpeg.check(content, header)
            return self._other(content, "jpeg")
        width, height = self._scaled(size)
        needed = (math.ceil(_DECODE_MARGIN * width), math.ceil(_DECODE_MARGIN * height))
        halved = self.settings.encode_format == "jpg" and not self.settings.upscale
        try:
            decoded = jpeg.decode(content, header, needed, halved)
        except jpeg.UncommonJpegError:
            return self._other(content, "jpeg")
        small = self._shrunk(decoded, size)
        if header.profile is not None or small.shape[2] == 1:
            grey = Image.fromarray(small[..., 0] if small.shape[2] == 1 else small)
            small = np.asarray(to_srgb(grey, header.profile))
        return upright_pixels(small, header.orientation), turned

    def _other(self, content: bytes, original_format: str) -> tuple[Pixels, tuple[int, int]]:
        """The same through Pillow, for all other formats and for CMYK."""
        if original_format == "png":
            damage = damaged_pixel_data(content)
            if damage:
                raise FailureError(Reason.BROKEN_IMAGE, damage)
            content = without_texts(content)
        quiet = _silent_stderr() if original_format == "tiff" else nullcontext()
        with quiet, Image.open(io.BytesIO(content), formats=[original_format.upper()]) as image:
            # Sizes in the header decide before anything is decoded: this stops bombs.
            self._check_size(_turned(image.size, orientation(image.info)))
            # Exactly once: a broken PNG raises on its first load and passes on a second one.
            image.load()
            size = image.size  # a TIFF turns itself while it loads
            turn = orientation(image.info)  # again: in a PNG it may stand behind the pixels
            full = to_resizable(image)
            if full.mode in ("RGB", "L"):
                full = Image.fromarray(self._shrunk(np.asarray(full), size))
            else:
                full = self._resized(full)
            small = to_srgb(full, image.info.get("icc_profile"))
        return upright_pixels(np.asarray(small), turn), _turned(size, turn)

    def _check_size(self, size: tuple[int, int]) -> None:
        shown = f"{size[0]} x {size[1]} pixels"
        shorter, longer = min(size), max(size)
        if shorter < 1:
            raise FailureError(Reason.BROKEN_IMAGE, shown)
        if shorter * longer > self.settings.max_pixels:
            raise FailureError(Reason.TOO_MANY_PIXELS, shown, size)
        if shorter < self.settings.min_side:
            raise FailureError(Reason.TOO_SMALL, shown, size)
        most = self.settings.max_aspect
        if most is not None and longer > most * shorter:
            raise FailureError(Reason.ASPECT, shown, size)

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size after scaling and before cropping."""
        if self.settings.resize_mode == "no":
            return size
        side = max(size) if self.settings.resize_mode == "keep_ratio_largest" else min(size)
        scale = self.settings.image_size / side
        if scale >= 1 and not self.settings.upscale:
            return size
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def _shrunk(self, pixels: Pixels, size: tuple[int, int]) -> Pixels:
        """Scale (and crop) pixels that were decoded at full size or smaller; `size` is the full."""
        target = self._scaled(size)
        if self.settings.resize_mode == "center_crop":
            height, width = pixels.shape[:2]
            target, box = _crop_square(target, (width, height), self.settings.image_size)
            left, top, right, bottom = (round(edge) for edge in box)
            pixels = pixels[top:bottom, left:right]
        shrunk = shrink(pixels, target)
        return shrunk if shrunk.ndim == pixels.ndim else shrunk[..., None]  # OpenCV drops (.., 1)

    def _resized(self, image: Image.Image) -> Image.Image:
        """The same by Pillow, which weighs colours by their transparency."""
        target = self._scaled(image.size)
        box: tuple[float, float, float, float] = (0, 0, *image.size)
        if self.settings.resize_mode == "center_crop":
            target, box = _crop_square(target, image.size, self.settings.image_size)
        if target == image.size and box == (0, 0, *image.size):
            return image
        return image.resize(target, Image.Resampling.BICUBIC, box=box, reducing_gap=_REDUCING_GAP)

    def _encode(self, pixels: Pixels) -> bytes:
        kind, quality = self.settings.encode_format, self.settings.encode_quality
        if kind == "jpg":
            return jpeg.encode(pixels, quality)
        options = {"quality": quality} if kind == "webp" else {}
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, _PILLOW_FORMATS[kind], **options)
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


def _format_of(content: bytes) -> str:
    """The file's format by its bytes.

    Raises:
        FailureError: unsupported_format or not_an_image.
    """
    found = sniff(content)
    if found is not None:
        return found
    unsupported = sniff_unsupported(content)
    if unsupported is not None:
        raise FailureError(Reason.UNSUPPORTED_FORMAT, unsupported)
    raise FailureError(Reason.NOT_AN_IMAGE, _first_bytes(content))


@contextmanager
def _damage_told() -> Iterator[None]:
    """Decoders raise whatever they like on hostile bytes (OSError, SyntaxError, struct.error,
    KeyError, TypeError, ...); each of them means that the file is broken."""
    try:
        yield
    except (FailureError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise FailureError(Reason.TOO_MANY_PIXELS, error) from error
    except PixelRangeError as error:
        raise FailureError(Reason.UNSUPPORTED_IMAGE, error) from error
    except jpeg.DamagedJpegError as error:
        raise FailureError(Reason.BROKEN_IMAGE, error) from error
    except Exception as error:
        raise FailureError(Reason.BROKEN_IMAGE, f"{type(error).__name__}: {error}") from error


def _turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Orientations 5 to 8 swap width and height."""
    return (size[1], size[0]) if turn >= 5 else size


def _crop_square(
    target: tuple[int, int], size: tuple[int, int], wanted: int
) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """The centre square of at most `wanted` pixels: its size, and its place in the source."""
    side = min(*target, wanted)
    margin_x = size[0] * (target[0] - side) / (2 * target[0])
    margin_y = size[1] * (target[1] - side) / (2 * target[1])
    return (side, side), (margin_x, margin_y, size[0] - margin_x, size[1] - margin_y)


def _first_bytes(content: bytes) -> str:
    """What came instead of a picture, for a person."""
    start = content[:256].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "HTML"
    return f"starts with {content[:16]!r}"
