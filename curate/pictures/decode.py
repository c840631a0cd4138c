"""A shard's pictures, decoded once: batches of uint8 arrays that every scorer shares.

Each picture is opened once and yields all that any scorer needs, at fixed shapes wherever one is
possible, so that everything after this file is an array operation over a batch:

    picture   (B, S, S, 3) uint8      the CLIP model's input, before normalisation
    views     (B, S, S, 3) uint8      the inputs of further models, each of its own size S; of a
                                      `whole` view a list of (h, w, 3), none longer than S
    canvas    (B, 128, 128, 3) uint8  the whole picture squashed to a square: hashes and basics
    grey      list of (h, w) uint8    luma with its shorter side at most 256 px: sharpness
    size      (B, 2) int32            width and height in pixels, upright

The order is that of the tar. A picture that does not decode keeps its row: its arrays are zero,
`decoded` is False and `error` holds the decoder's words; nobody may read its zeros as scores.

JPEGs are decoded at a reduced DCT scale (libjpeg's "draft": 1/2, 1/4, 1/8) as long as the shorter
side stays at or above both S and 256 px: every later step only shrinks. On 62 web photographs of
about 500 to 1,000 px this took 6.9 in place of 8.2 CPU ms and moved the model's input by 0.4 of 255
levels on average; larger pictures gain more. `draft=False` decodes in full.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from curate.base.reasons import printable
from curate.pictures.png_chunks import without_texts

CANVAS = 128
"""Side of the square canvas in pixels."""
GREY_SIDE = 256
"""Largest shorter side of `grey`, in pixels."""
MAX_PIXELS = 178_956_970
"""Pictures with more pixels are refused unread (Pillow's own limit for a decompression bomb)."""


@dataclass(frozen=True)
class PictureView:
    """How a model wants its input.

    size: side S of the square input, in pixels.
    squash: resize both sides to S (SigLIP) instead of the shorter one with a centre crop (CLIP).
    resample: "bicubic" or "bilinear", both with antialiasing.
    draft: allow JPEG decoding at a reduced scale.
    whole: keep the picture's shape; its longer side is shrunk to S where it is longer.
    """

    size: int = 224
    squash: bool = False
    resample: str = "bicubic"
    draft: bool = True
    whole: bool = False


Pixels = NDArray[np.uint8] | list[NDArray[np.uint8]]
"""A view of B pictures: (B, S, S, 3), or a list of B of their own shapes."""


@dataclass(frozen=True)
class PictureBatch:
    """B decoded pictures; see the module for shapes. `pixel_sha256` is None where undecoded."""

    keys: list[str]
    decoded: NDArray[np.bool_]
    error: list[str | None]
    picture: NDArray[np.uint8]  # of a whole view, a list
    canvas: NDArray[np.uint8]
    grey: list[NDArray[np.uint8]]
    size: NDArray[np.int32]
    pixel_sha256: list[str | None]
    views: tuple[Pixels, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _Decoded:
    picture: NDArray[np.uint8]
    canvas: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    size: tuple[int, int]
    pixel_sha256: str
    views: tuple[NDArray[np.uint8], ...]


def decode_batches(
    samples: Iterable[tuple[str, bytes]],
    view: PictureView,
    batch_size: int,
    threads: int = 1,
    more: Sequence[PictureView] = (),
) -> Iterator[PictureBatch]:
    """Decode (key, image bytes) pairs into batches, in their order.

    Args:
        view: of `picture`; more: of `views`, for further models.

    With `threads` > 1 pictures are decoded by that many threads (Pillow releases the GIL) and one
    batch ahead of the caller, so that decoding and the model overlap. Memory: two batches.
    """
    pairs = iter(samples)
    if threads <= 1:
        while batch := list(islice(pairs, batch_size)):
            yield decode_batch(batch, view, more)
        return
    Ahead = tuple[list[tuple[str, bytes]], list[Future[_Decoded | str]]]
    ahead: deque[Ahead] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        while True:
            while len(ahead) < 2 and (batch := list(islice(pairs, batch_size))):
                ahead.append((batch, [pool.submit(_attempt, raw, view, more) for _, raw in batch]))
            if not ahead:
                return
            batch, futures = ahead.popleft()
            yield _collate(batch, [future.result() for future in futures], view, more)


def decode_batch(
    batch: list[tuple[str, bytes]], view: PictureView, more: Sequence[PictureView] = ()
) -> PictureBatch:
    """Decode (key, image bytes) pairs, in this thread; none give a batch of the usual types."""
    return _collate(batch, [_attempt(raw, view, more) for _, raw in batch], view, more)


def _attempt(raw: bytes, view: PictureView, more: Sequence[PictureView] = ()) -> _Decoded | str:
    """The decoded picture, or the decoder's words.

    Decoders raise almost any type on hostile bytes (OSError, SyntaxError, struct.error, ...), and
    each means the same here: this picture cannot be scored, and the words say why.
    """
    try:
        return _decode(raw, view, more)
    except UnidentifiedImageError:
        return "no image format that Pillow knows"  # its own words hold a memory address
    except Exception as error:
        return printable(f"{type(error).__name__}: {error}")[:300]


def _decode(raw: bytes, view: PictureView, more: Sequence[PictureView]) -> _Decoded:
    floor = max(view.size, GREY_SIDE)
    upright, size = decode_upright(raw, view.draft, floor)
    fine = upright
    larger = [other.size for other in more if other.size > floor]
    if larger and upright.size != size:
        # Further models must not change what all others see, so a larger one decodes again.
        fine, _ = decode_upright(raw, view.draft, max(larger))
    pixels = upright.tobytes()
    digest = hashlib.sha256(b"%d %d " % upright.size + pixels).hexdigest()
    grey = upright.convert("L")
    if min(grey.size) > GREY_SIDE:
        grey = grey.resize(_shorter_side(grey.size, GREY_SIDE), Image.Resampling.BOX)
    return _Decoded(
        picture=_view_of(upright, view),
        canvas=np.asarray(upright.resize((CANVAS, CANVAS), Image.Resampling.BOX)),
        grey=np.asarray(grey),
        size=size,
        pixel_sha256=digest,
        views=tuple(_view_of(fine if other.size > floor else upright, other) for other in more),
    )


def decode_upright(raw: bytes, draft: bool, floor: int) -> tuple[Image.Image, tuple[int, int]]:
    """The picture as RGB, and its full size; a JPEG's shorter side may shrink to `floor`.

    Raises almost anything on hostile bytes, see `_attempt`.
    """
    with Image.open(io.BytesIO(without_texts(raw))) as opened:
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width}x{height} has more than {MAX_PIXELS} pixels")
        if draft and opened.format == "JPEG":
            opened.draft("RGB", (floor, floor))
        opened.load()
        turned = opened.getexif().get(0x0112, 1) > 4  # orientations 5 to 8 swap the axes
        upright = to_rgb(ImageOps.exif_transpose(opened))
    return upright, (height, width) if turned else (width, height)


_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB. Transparency is laid on white, as a page shows it; 16 bits are scaled to 8."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        return _from_deep(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_deep(image: Image.Image) -> Image.Image:
    # Pillow clips 16-bit grey at 255 instead of scaling it: almost every picture turns white.
    values = np.asarray(image).astype(np.float32)
    highest = values.max(initial=0.0)
    scale = 65535.0 if highest > 255 else 255.0 if highest > 1 or image.mode != "F" else 1.0
    return Image.fromarray((np.clip(values / scale, 0, 1) * 255 + 0.5).astype(np.uint8))


def model_view(picture: NDArray[np.uint8], view: PictureView) -> NDArray[np.uint8]:
    """One (H, W, 3) uint8 picture as a model wants it: (S, S, 3) uint8, unless it is `whole`."""
    return _view_of(Image.fromarray(picture), view)


def _view_of(image: Image.Image, view: PictureView) -> NDArray[np.uint8]:
    side, resample = view.size, _RESAMPLE[view.resample]
    if view.whole:
        scale = side / max(image.size)
        if scale >= 1:
            return np.asarray(image)
        width, height = (max(1, round(extent * scale)) for extent in image.size)
        return np.asarray(image.resize((width, height), resample))
    if view.squash:
        return np.asarray(image.resize((side, side), resample))
    if max(image.size) > _EXTREME_ASPECT * min(image.size):
        image = _centre(image)  # or a line of 1 x 50,000 px would grow to gigabytes
    width, height = _shorter_side(image.size, side)
    if (width, height) != image.size:
        image = image.resize((width, height), resample)
    # torchvision's CenterCrop rounds half to even, and so does this.
    left, top = round((width - side) / 2.0), round((height - side) / 2.0)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def _centre(image: Image.Image) -> Image.Image:
    """The middle of a very long picture, two squares long: all that the centre crop can see."""
    width, height = image.size
    reach = min(width, height)
    left, top = max(0, width // 2 - reach), max(0, height // 2 - reach)
    return image.crop((left, top, min(width, left + 2 * reach), min(height, top + 2 * reach)))


_EXTREME_ASPECT = 16


def _shorter_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    # The longer side is cut, not rounded: this is what torchvision's Resize does.
    width, height = size
    if width <= height:
        return side, max(side, int(side * height / width))
    return max(side, int(side * width / height)), side


def _collate(
    batch: list[tuple[str, bytes]],
    results: list[_Decoded | str],
    view: PictureView,
    more: Sequence[PictureView],
) -> PictureBatch:
    count = len(batch)
    picture, *views = (_blank(count, one) for one in (view, *more))
    canvas = np.zeros((count, CANVAS, CANVAS, 3), np.uint8)
    size = np.zeros((count, 2), np.int32)
    grey = [np.zeros((1, 1), np.uint8)] * count
    digest: list[str | None] = [None] * count
    error: list[str | None] = [None] * count
    for row, result in enumerate(results):
        if isinstance(result, str):
            error[row] = result
            continue
        picture[row], canvas[row], size[row] = result.picture, result.canvas, result.size
        grey[row], digest[row] = result.grey, result.pixel_sha256
        for array, pixels in zip(views, result.views, strict=True):
            array[row] = pixels
    return PictureBatch(
        keys=[key for key, _ in batch],
        decoded=np.array([words is None for words in error], bool),
        error=error,
        picture=picture,
        canvas=canvas,
        grey=grey,
        size=size,
        pixel_sha256=digest,
        views=tuple(views),
    )


def _blank(count: int, view: PictureView) -> Any:
    if view.whole:
        return [np.zeros((1, 1, 3), np.uint8)] * count
    return np.zeros((count, view.size, view.size, 3), np.uint8)
