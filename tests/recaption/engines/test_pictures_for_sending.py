import io

import numpy as np
import pytest
from PIL import Image

from recaption.engines.pictures import BrokenPictureError, for_sending, size_as_it_is


def encoded(
    picture_format: str, size: tuple[int, int] = (60, 40), mode: str = "RGB", **options: object
) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, picture_format, **options)
    return buffer.getvalue()


def turned(picture_format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture_format, exif=exif)


@pytest.mark.parametrize("picture_format", ["jpeg", "png"])
def test_a_file_of_the_asked_format_and_size_is_sent_byte_for_byte(picture_format: str) -> None:
    content = encoded(picture_format)
    assert for_sending(content, 60, picture_format) == (content, (60, 40))
    assert for_sending(content, 0, picture_format) == (content, (60, 40))


OTHER = {
    "too large": (encoded("jpeg", (80, 40)), "jpeg", (60, 30)),
    "another format": (encoded("webp"), "jpeg", (60, 40)),
    "png where jpeg is asked": (encoded("png"), "jpeg", (60, 40)),
    "grey jpeg": (encoded("jpeg", mode="L"), "jpeg", (60, 40)),
    "cmyk jpeg": (encoded("jpeg", mode="CMYK"), "jpeg", (60, 40)),
    "turned jpeg": (turned("jpeg"), "jpeg", (40, 60)),
    "turned png": (turned("png"), "png", (40, 60)),
    "palette png": (encoded("png", mode="P"), "png", (60, 40)),
    "transparent png": (encoded("png", mode="RGBA"), "png", (60, 40)),
    "png with a transparent colour": (encoded("png", transparency=(1, 2, 3)), "png", (60, 40)),
}


@pytest.mark.parametrize("name", OTHER)
def test_every_other_file_is_decoded_and_encoded_anew(name: str) -> None:
    content, picture_format, size = OTHER[name]
    assert size_as_it_is(content, 60, picture_format) is None
    sent, sent_size = for_sending(content, 60, picture_format)
    with Image.open(io.BytesIO(sent)) as image:
        found = (image.format.lower(), image.mode, image.size, image.getexif().get(0x0112, 1))
    assert found == (picture_format, "RGB", size, 1)
    assert sent_size == size


@pytest.mark.parametrize("picture_format", ["jpeg", "png"])
@pytest.mark.parametrize("kept", [2, 20, 30, 200, -40])
def test_a_file_that_was_cut_short_is_never_sent(picture_format: str, kept: int) -> None:
    with pytest.raises(BrokenPictureError):
        for_sending(encoded(picture_format)[:kept], 60, picture_format)


def test_a_jpeg_with_notes_behind_its_end_is_whole() -> None:
    content = encoded("jpeg") + b"camera notes"
    assert for_sending(content, 60, "jpeg") == (content, (60, 40))
