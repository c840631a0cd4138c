"""A row's detail says the same in every run."""

import io

import pytest

from curate.base.reasons import Failure, FailureError, Reason, printable
from curate.pictures.decode import PictureView, decode_batch
from curate.pictures.resize import Resizer

BROKEN = {
    "webp": b"RIFF\x24\x00\x00\x00WEBPVP8 " + b"\0" * 40,
    "gif": b"GIF89a\0\0",
    "bmp": b"BM" + b"\0" * 60,
    "tiff": b"II*\0\x08\0\0\0" + b"\0" * 40,
    "png": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "avif": b"\0\0\0\x1cftypavif" + b"\0" * 40,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_no_detail_of_a_broken_picture_holds_a_memory_address(content):
    outcome = Resizer().outcome(content)
    assert isinstance(outcome, Failure)
    assert "0x" not in outcome.detail
    (error,) = decode_batch([("key", content)], PictureView(32)).error
    assert error is not None
    assert "0x" not in error


def test_an_objects_address_is_left_out_of_a_detail_and_other_numbers_stay():
    found = FailureError(Reason.UNEXPECTED, ValueError(f"bad {io.BytesIO()!r} ({object()!r})"))
    assert found.failure.detail == "bad <_io.BytesIO object> (<object object>)"
    assert printable("fault at 0x1F, colour 0xdeadbeef") == "fault at 0x1F, colour 0xdeadbeef"
