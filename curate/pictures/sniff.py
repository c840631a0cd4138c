"""Which picture format a file is in, by its first bytes; names and content types are not believed.

Only formats with a decoder in Pillow that is meant for the web, so that a list of URLs cannot reach
the rarely used ones (PSD, EPS, FITS, ...).
"""

from __future__ import annotations

import re
import zlib
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
    if content[4:8] == b"ftyp" and _brands(content) & _AVIF_BRANDS and _reads_avif():
        return "avif"
    return None


# Pictures that are none of the above: known, so that nobody takes them for a page of HTML.
_UNSUPPORTED_MAGIC = (
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),  # a bare codestream
    (b"\0\0\1\0", "ico"),
    (b"\0\0\2\0", "cur"),
    (b"icns", "icns"),
    (b"8BPS", "psd"),
    (b"gimp xcf", "xcf"),
    (b"II\xbc\1", "jxr"),
    (b"v/1\1", "exr"),
    (b"#?RADIANCE", "hdr"),
    (b"#?RGBE", "hdr"),
    (b"qoif", "qoi"),
    (b"DDS ", "dds"),
    (b"BPG\xfb", "bpg"),
    (b"FLIF", "flif"),
    (b"\x8aMNG\r\n\x1a\n", "mng"),
    (b"\x8bJNG\r\n\x1a\n", "jng"),
)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_NETPBM = re.compile(rb"P[1-7]\s+[#\d]|P7\nWIDTH|P[Ff]\s+\d")
# What may stand before the root element of an SVG: a declaration, comments, a document type.
# Atomic, or hostile files could make the search take ages.
_SVG = re.compile(
    rb"(?>\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE\s+(?:\w+:)?svg\b[^\[>]*(?:\[.*?\]\s*)?>)*+"
    rb"<(?:\w+:)?svg[\s>/]",
    re.DOTALL | re.IGNORECASE,
)
_LOOKED_AT = 16 << 10  # bytes of a text in which the root element must come


def sniff_unsupported(content: bytes) -> str | None:
    """The format of a picture that `sniff` does not name: "heic", "jxl", "svg", ..., or None.

    An AVIF that this Pillow cannot read is one; a page of HTML that holds an SVG is none.
    """
    for magic, name in _UNSUPPORTED_MAGIC:
        if content.startswith(magic):
            return name
    if content[4:8] == b"ftyp":
        if _brands(content) & _AVIF_BRANDS:
            return "avif"
        return "heic" if _brands(content) & _HEIF_BRANDS else None
    if _NETPBM.match(content):
        return "pnm"
    if content[:2] == b"\x1f\x8b":  # .svgz
        return "svg" if _SVG.match(_text(_unpacked(content))) else None
    return "svg" if _SVG.match(_text(content[:_LOOKED_AT])) else None


def _unpacked(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, _LOOKED_AT)
    except zlib.error:
        return b""


def _text(content: bytes) -> bytes:
    """UTF-16 as UTF-8, without a byte order mark."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if content.startswith(mark):
            return content[2:].decode(encoding, "replace").encode("utf-8", "replace")
    return content.removeprefix(b"\xef\xbb\xbf")


_AVIF_BRANDS = frozenset({b"avif", b"avis"})


def _brands(content: bytes) -> set[bytes]:
    """The major and the compatible brands of the file type box."""
    box = content[8 : min(int.from_bytes(content[:4], "big"), 256)]
    return {box[start : start + 4] for start in range(0, len(box), 4)}


@cache
def _reads_avif() -> bool:
    from PIL import features

    return bool(features.check("avif"))
