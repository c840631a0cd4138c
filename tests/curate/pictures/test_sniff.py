"""Pictures that are not read are told from what is no picture."""

import gzip

import pytest

from curate.base.reasons import Reason
from curate.pictures.resize import Resizer
from curate.pictures.sniff import sniff, sniff_unsupported
from tests.curate.tiny import drawn, encoded

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


def boxed(brand: bytes, *compatible: bytes) -> bytes:
    inside = brand + bytes(4) + b"".join(compatible)
    return (8 + len(inside)).to_bytes(4, "big") + b"ftyp" + inside + bytes(64)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (boxed(b"heic", b"mif1"), "heic"),
        (boxed(b"mif1", b"heic"), "heic"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(9), "jxl"),
        (b"\xff\x0a\xfa\x1f", "jxl"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(9), "jp2"),
        (b"\xff\x4f\xff\x51\0\x2f", "jp2"),
        (SVG, "svg"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn <p> by hand -->\n" + SVG, "svg"),
        (b'<!DOCTYPE svg PUBLIC "a" "b" [<!ENTITY x "y">]>' + SVG, "svg"),
        (("\ufeff" + SVG.decode()).encode("utf-16-le"), "svg"),
        (gzip.compress(SVG, mtime=0), "svg"),
        (b"\0\0\1\0\1\0\x10\x10", "ico"),
        (b"8BPS\0\1", "psd"),
        (b"P6 2 2 255\n" + bytes(12), "pnm"),
    ],
)
def test_a_picture_in_a_format_that_is_not_read_has_a_reason_of_its_own(content, name):
    failure = Resizer().outcome(content)
    assert (failure.reason, failure.detail) == (Reason.UNSUPPORTED_FORMAT, name)
    assert failure.original_format == name


@pytest.mark.parametrize(
    "content",
    [
        b"<!doctype html><html><body>" + SVG,
        b"<html>" + SVG,
        b"<!-- not found --><p>" + SVG,
        b"svg",
        gzip.compress(b"<html>", mtime=0),
        b"\x1f\x8b cut",
        boxed(b"isom", b"mp41"),
        b"P4ssword 1",
    ],
)
def test_a_page_a_film_or_a_text_is_no_picture(content):
    assert Resizer().outcome(content).reason is Reason.NOT_AN_IMAGE


def test_what_is_read_is_never_called_unsupported():
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"):
        content = encoded(drawn(1), kind)
        assert sniff(content) == kind.lower()
        assert sniff_unsupported(content) in (None, "avif")


def test_a_hostile_prolog_ends_the_search_at_once():  # with backtracking it would never end
    assert sniff_unsupported(b"<!--a-->" * 1500 + b"<?x?>" * 500 + b"<p>") is None
