"""Which picture format a file is in, by its first bytes; names and content types are not believed.

Only formats with a decoder in Pillow that is meant for the web, so that a list of URLs cannot reach
the rarely used ones (PSD, EPS, FITS, ...).
"""

from __future__ import annotations

from functools import cache

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)


def sniff(content: bytes) -> str | None:
    """ "jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", or None for anything else."""
    for magic, name in _MAGIC:
        if content.startswith(magic):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    if content[4:8] == b"ftyp" and _avif_brand(content) and _reads_avif():
        return "avif"
    return None


def _avif_brand(content: bytes) -> bool:
    """Whether the file type box names AVIF as its major or a compatible brand."""
    box = content[8 : min(int.from_bytes(content[:4], "big"), 256)]
    brands = {box[start : start + 4] for start in range(0, len(box), 4)}
    return bool(brands & {b"avif", b"avis"})


@cache
def _reads_avif() -> bool:
    from PIL import features

    return bool(features.check("avif"))
