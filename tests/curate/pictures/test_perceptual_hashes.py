import numpy as np
from PIL import Image
from scipy.fft import dctn

from curate.pictures.perceptual_hashes import (
    VIEWS,
    mirrored,
    perceptual_hashes,
    thumbnails,
    unpacked,
)
from tests.curate.tiny import drawn


def canvas_of(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((128, 128), Image.Resampling.BOX))[None]


def bits(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(a ^ b))


def test_the_plain_hash_is_the_sign_of_the_lowest_dct_coefficients() -> None:
    canvas = canvas_of(drawn(4))
    luma = canvas[0] @ np.array([0.299, 0.587, 0.114], np.float32)
    points = luma.reshape(32, 4, 32, 4).mean(axis=(1, 3))
    low = dctn(points, type=2)[:8, :8].ravel()
    # scipy's DCT scales all frequencies alike, so that signs against the median are the same
    expected = low > np.median(low[1:])
    hash_bits = np.array([int(perceptual_hashes(canvas)[0, 0]) >> i & 1 for i in range(64)])
    assert np.array_equal(hash_bits.astype(bool), expected)


def test_the_mirrored_view_is_the_plain_hash_of_the_mirror_image() -> None:
    picture = drawn(7, 90, 70)
    plain, mirrored = perceptual_hashes(canvas_of(picture))[0, :2]
    flipped = perceptual_hashes(canvas_of(picture[:, ::-1].copy()))[0]
    assert bits(mirrored, flipped[0]) <= 2
    assert bits(plain, flipped[1]) <= 2
    assert bits(plain, flipped[0]) > 16


def test_a_crop_view_is_the_plain_hash_of_the_crop() -> None:
    picture = drawn(8, 200, 200)
    views = perceptual_hashes(canvas_of(picture))[0]
    crop = perceptual_hashes(canvas_of(picture[10:190, 10:190].copy()))[0, 0]
    assert bits(views[VIEWS.index((0.10, False))], crop) <= 4


def test_different_pictures_have_unrelated_hashes() -> None:
    hashes = np.concatenate([perceptual_hashes(canvas_of(drawn(i))) for i in range(20)])[:, 0]
    apart = np.bitwise_count(hashes[:, None] ^ hashes)[~np.eye(20, dtype=bool)]
    assert apart.min() > 12


def test_thumbnails_hold_area_averages_of_luma_and_colour() -> None:
    canvas = canvas_of(drawn(1))
    luma, colour = unpacked(thumbnails(canvas))
    rgb = canvas[0].reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    grey = rgb @ [0.299, 0.587, 0.114]
    assert np.abs(luma[0] - grey).max() <= 0.51
    blue = 0.564 * (rgb[..., 2] - grey).reshape(16, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(colour[0, 0] - blue).max() <= 0.51


def test_a_mirrored_thumbnail_is_the_thumbnail_of_the_mirror_image() -> None:
    canvas = np.concatenate([canvas_of(drawn(seed)) for seed in range(3)])
    assert np.array_equal(mirrored(thumbnails(canvas)), thumbnails(canvas[:, :, ::-1]))
