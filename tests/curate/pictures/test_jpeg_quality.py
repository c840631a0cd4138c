"""The estimated quality of a JPEG: libjpeg's own is told exactly, another encoder's nearly."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from curate.pictures.jpeg_quality import jpeg_quality
from curate.pictures.resize import Resizer
from curate.pictures.settings import PictureSettings
from tests.curate.tiny import drawn, encoded


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_every_quality_of_libjpeg_is_told_exactly(options):
    picture = Image.fromarray(drawn(0, 32, 24))
    for quality in range(1, 101):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, **options)
        assert jpeg_quality(file.getvalue()) == quality


def test_a_grey_picture_and_another_library_are_told_as_well():
    grey = np.ascontiguousarray(drawn(1, 32, 32)[..., :1])
    assert jpeg_quality(simplejpeg.encode_jpeg(grey, 63, "GRAY")) == 63
    assert jpeg_quality(simplejpeg.encode_jpeg(drawn(1, 32, 32), 17, "RGB")) == 17


def test_a_table_of_an_encoders_own_gives_the_nearest_quality():
    file = io.BytesIO()
    own = [[min(255, step + 1) for step in table] for table in _tables(80)]
    Image.fromarray(drawn(2, 32, 32)).save(file, "JPEG", qtables=own)
    assert jpeg_quality(file.getvalue()) == pytest.approx(80, abs=4)


def test_a_stored_picture_tells_of_the_original_and_not_of_itself():
    small = Resizer(PictureSettings(image_size=16, encode_quality=95))
    assert small.store(encoded(drawn(3), "JPEG", quality=42)).jpeg_quality == 42
    assert small.store(encoded(drawn(3), "PNG")).jpeg_quality is None
    assert small.store(encoded(drawn(3), "WEBP", quality=42)).jpeg_quality is None


def test_a_file_that_ends_in_its_header_has_none():
    whole = encoded(drawn(3), "JPEG", quality=42)
    assert jpeg_quality(whole[:30]) is None


def _tables(quality):
    return list(
        Image.open(io.BytesIO(encoded(drawn(2), "JPEG", quality=quality))).quantization.values()
    )
