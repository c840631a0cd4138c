"""Pictures for the page: thumbnails, made once and kept, and each picture as it is stored."""

from __future__ import annotations

import hashlib
import io
import os
import threading

from PIL import Image
from starlette.responses import Response
from starlette.routing import Route

from curate.base.errors import ConfigError, DatasetError
from curate.base.reasons import printable
from curate.pictures.decode import decode_upright
from pipelines.view.answers import Asked, get
from pipelines.view.opened import Opened
from pipelines.view.thumbnails import Thumbnails

EDGES = (160, 320)
"""Longest sides of thumbnails in pixels."""
QUALITY = 80
_DAY = "private, max-age=86400, immutable"
_ASK = "private, no-cache"  # kept, and asked for each time
# What a browser is told is decided by the first bytes, never by a name.
_TYPES = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n", "image/png"), (b"RIFF", "image/webp"))


def routes(opened: Opened) -> list[Route]:
    """GET /thumbnail/KEY and /picture/KEY."""
    if opened.dataset is None:
        return []
    kept = Thumbnails(opened.dataset, opened.cache)
    opened.at_end(kept.close)
    # More at once than there are cores would only hold more decoded pictures in memory.
    decoding = threading.BoundedSemaphore(os.cpu_count() or 1)

    def small(asked: Asked) -> Response:
        edge = asked.whole("edge", EDGES[0], EDGES[0], EDGES[-1])
        if edge not in EDGES:
            raise ConfigError(f"Thumbnails have an edge of {' or '.join(map(str, EDGES))} pixels.")
        shard, key = opened.tables.shard_of(asked["key"]), asked["key"]
        webp = kept.get(shard, key, edge)
        if webp is None:
            with decoding:
                webp = thumbnail(kept.picture(shard, key), edge)
            kept.keep(shard, key, edge, webp)
        mark = f'"{hashlib.sha256(webp).hexdigest()[:20]}"'
        # A page that was loaded before asks for the pictures of its time.
        kept_as = _DAY if asked.text("of") == opened.pictures else _ASK
        headers = {"ETag": mark, "Cache-Control": kept_as}
        if asked.request.headers.get("if-none-match") == mark:
            return Response(status_code=304, headers=headers)
        return Response(webp, media_type="image/webp", headers=headers)

    def whole(asked: Asked) -> Response:
        picture = kept.picture(opened.tables.shard_of(asked["key"]), asked["key"])
        return Response(picture, media_type=media_type(picture))

    return [get("/thumbnail/{key}", small), get("/picture/{key}", whole)]


def media_type(picture: bytes) -> str:
    """What a browser is told of a picture, by its first bytes.

    Raises:
        DatasetError: it is of no kind that a browser shows.
    """
    for start, kind in _TYPES:
        if picture.startswith(start):
            return kind
    raise DatasetError("The stored picture is of no kind that a browser shows.")


def thumbnail(encoded: bytes, edge: int) -> bytes:
    """A picture, upright, with its longest side at most `edge` pixels, as WebP.

    Raises:
        DatasetError: it does not decode.
    """
    try:
        picture, _ = decode_upright(encoded, True, edge)
    except Exception as error:  # decoders raise any type on hostile bytes
        words = printable(f"{type(error).__name__}: {error}")[:200]
        raise DatasetError(f"The stored picture cannot be decoded ({words}).") from error
    picture.thumbnail((edge, edge), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=QUALITY, method=2)
    return buffer.getvalue()
