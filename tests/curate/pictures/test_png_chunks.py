"""A PNG is its pixels: no text beside them can lose the picture."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from curate.pictures.decode import PictureView, decode_batch
from curate.pictures.png_chunks import without_texts
from curate.pictures.resize import Resizer
from curate.pictures.settings import PictureSettings

WIDTH, HEIGHT = 48, 32
GREY = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if checksum is None else checksum
    return len(data).to_bytes(4, "big") + kind + data + crc.to_bytes(4, "big")


def png(*chunks: bytes, behind: bool = False, **options: object) -> bytes:
    """A PNG with further chunks before its pixels, or behind them."""
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "PNG", **options)
    plain = buffer.getvalue()
    place = plain.index(b"IEND" if behind else b"IDAT") - 4
    return plain[:place] + b"".join(chunks) + plain[place:]


def upright_size(content: bytes) -> tuple[int, int]:
    stored = Resizer(PictureSettings(encode_format="png")).store(content)
    batch = decode_batch([("key", content)], PictureView(32))
    assert batch.error == [None]
    assert batch.size[0].tolist() == [stored.width, stored.height]
    return stored.width, stored.height


LONG = b"x" * 3_000_000
TEXTS = {
    "packed": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
    "packed international": chunk(b"iTXt", b"Comment\0\1\0en\0\0" + zlib.compress(LONG)),
    "packed xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    "packed exif": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(LONG)),
    "plain, more than Pillow holds": chunk(b"tEXt", b"Comment\0" + bytes(65 << 20)),
    "many": chunk(b"tEXt", b"Comment\0" + LONG) * 3,
    "wrong checksum": chunk(b"tEXt", b"Comment\0hello", checksum=7),
    "unknown packing": chunk(b"zTXt", b"Comment\0\7hello"),
    "broken packing": chunk(b"zTXt", b"Raw profile type exif\0\0hello"),
    "no keyword": chunk(b"tEXt", b""),
    "another setting's name": chunk(b"tEXt", b"icc_profile\0x") + chunk(b"tEXt", b"bbox\0x"),
}


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("name", TEXTS)
def test_no_text_beside_the_pixels_loses_a_picture(name, behind):
    content = png(TEXTS[name], behind=behind)
    assert upright_size(content) == (WIDTH, HEIGHT)
    stored = Resizer(PictureSettings(encode_format="png")).store(content)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored.content))), GREY)


def test_a_text_that_says_which_way_is_up_is_still_heard():
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    said = f"\nexif\n{len(block)}\n{block.hex()}".encode()
    packed = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(said))
    assert upright_size(png(TEXTS["packed"], packed)) == (HEIGHT, WIDTH)
    assert upright_size(png(chunk(b"tEXt", b"Raw profile type exif\0" + said))) == (HEIGHT, WIDTH)


def test_a_picture_without_long_texts_comes_back_as_it_is():
    for content in (png(), b"\xff\xd8\xff no PNG", b"", png()[:60]):
        assert without_texts(content) is content


def test_a_colour_profile_of_more_than_a_mebibyte_is_applied():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = (len(srgb) + 2_000_000).to_bytes(4, "big") + srgb[4:] + bytes(2_000_000)
    with Image.open(io.BytesIO(png(icc_profile=profile))) as image:
        assert len(image.info["icc_profile"]) == len(profile)
    assert upright_size(png(icc_profile=profile)) == (WIDTH, HEIGHT)
