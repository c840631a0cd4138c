import io

import numpy as np
import pytest
from PIL import Image

from curate.pictures.decode import PictureView, decode_batches, model_view, to_rgb
from tests.curate.tiny import drawn, encoded

SMALL = PictureView(32)


def batches_of(files: list[bytes], view: PictureView = SMALL, **options: int):
    named = [(f"k{i}", file) for i, file in enumerate(files)]
    return list(decode_batches(named, view, **{"batch_size": 4, **options}))


def test_batches_keep_the_order_and_have_fixed_shapes() -> None:
    files = [encoded(drawn(i, 60 + 10 * i, 90)) for i in range(6)]
    first, second = batches_of(files)
    assert first.keys + second.keys == [f"k{i}" for i in range(6)]
    assert first.picture.shape == (4, 32, 32, 3)
    assert second.canvas.shape == (2, 128, 128, 3)
    assert first.size.tolist() == [[60, 90], [70, 90], [80, 90], [90, 90]]


def test_threads_give_the_same_batches_as_no_threads() -> None:
    files = [encoded(drawn(i)) for i in range(9)]
    for alone, threaded in zip(batches_of(files), batches_of(files, threads=3), strict=True):
        assert alone.keys == threaded.keys
        assert np.array_equal(alone.picture, threaded.picture)
        assert alone.pixel_sha256 == threaded.pixel_sha256


def test_a_broken_picture_keeps_its_row_and_says_why() -> None:
    whole = encoded(drawn(1))
    (batch,) = batches_of([whole, whole[: len(whole) // 2], b"not a picture", whole])
    assert batch.decoded.tolist() == [True, False, False, True]
    assert batch.error[0] is None
    assert "truncated" in batch.error[1]
    assert batch.error[2] == "no image format that Pillow knows"
    assert batch.pixel_sha256[1] is None


def test_the_model_view_is_that_of_open_clip() -> None:
    from open_clip.transform import image_transform

    transform = image_transform(32, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    for width, height in ((90, 61), (61, 90), (32, 200), (31, 32)):
        picture = drawn(3, width, height)
        expected = transform(Image.fromarray(picture)).permute(1, 2, 0).numpy() * 255
        assert np.abs(model_view(picture, PictureView(32)) - expected).max() < 1e-3


def test_draft_decoding_stays_close_to_full_decoding() -> None:
    file = encoded(drawn(5, 1200, 1000), "JPEG", quality=90)
    (draft,) = batches_of([file], PictureView(64))
    (full,) = batches_of([file], PictureView(64, draft=False))
    assert draft.size.tolist() == full.size.tolist() == [[1200, 1000]]
    assert np.abs(draft.picture.astype(int) - full.picture).mean() < 2
    assert min(draft.grey[0].shape) == 256


def test_exif_orientation_is_applied() -> None:
    picture = drawn(2, 80, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", exif=exif)
    (batch,) = batches_of([stream.getvalue()])
    assert batch.size.tolist() == [[40, 80]]
    turned = np.rot90(picture, -1)
    assert np.array_equal(batch.picture[0], model_view(turned.copy(), PictureView(32)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1)))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert(mode)
    rgb = np.asarray(to_rgb(image))
    assert rgb.shape == (32, 32, 3)
    assert rgb[0, 0].max() < 20  # black stays black
    assert rgb[0, -1].min() > 200  # and 16 bits do not turn white earlier than white
    assert 90 < rgb[:, 12:20].mean() < 165


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert np.asarray(to_rgb(clear)).min() == 255


def test_a_very_long_picture_costs_little() -> None:
    (batch,) = batches_of([encoded(np.zeros((1, 30_000, 3), np.uint8))], PictureView(224))
    assert batch.decoded.all()
    assert batch.picture.shape == (1, 224, 224, 3)


def test_a_further_model_of_any_size_changes_nothing_that_others_see() -> None:
    raw = encoded(drawn(3, 1024, 768), "JPEG", quality=90)
    (alone,) = decode_batches([("a", raw)], PictureView(224), 1)
    more = [PictureView(256, squash=True), PictureView(384)]
    (both,) = decode_batches([("a", raw)], PictureView(224), 1, more=more)
    assert np.array_equal(alone.picture, both.picture)
    assert np.array_equal(alone.grey[0], both.grey[0])
    assert alone.pixel_sha256 == both.pixel_sha256
    assert [view.shape[1] for view in both.views] == [256, 384]
    (whole,) = decode_batches([("a", raw)], PictureView(384), 1)
    assert np.array_equal(both.views[1], whole.picture)
