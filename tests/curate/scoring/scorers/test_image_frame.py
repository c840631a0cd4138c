import numpy as np
import pytest

from curate.scoring.scorers.image_basics import border_share, grey_share
from tests.curate.tiny import drawn


def framed(top: int, side: int, colour: int = 255) -> np.ndarray:
    picture = drawn(3, 128, 128)
    picture[:top] = picture[128 - top :] = colour
    picture[:, :side] = picture[:, 128 - side :] = colour
    return picture


@pytest.mark.parametrize(
    ("top", "side", "share"),
    [(0, 0, 0), (16, 0, 0.25), (0, 16, 0.25), (16, 16, 1 - 0.75 * 0.75), (32, 0, 0.5)],
)
@pytest.mark.parametrize("colour", [0, 255])
def test_the_frames_area_is_measured(top: int, side: int, share: float, colour: int) -> None:
    picture = framed(top, side, colour) if top or side else drawn(3, 128, 128)
    assert border_share(picture[None]) == pytest.approx([share], abs=0.02)


def test_a_frame_on_one_side_counts_as_well() -> None:
    picture = drawn(3, 128, 128)
    picture[96:] = (10, 60, 10)
    assert border_share(picture[None]) == pytest.approx([0.25], abs=0.02)


def test_a_picture_of_one_colour_is_all_frame_and_jpegs_noise_is_no_structure() -> None:
    plain = np.full((128, 128, 3), 200, np.uint8)
    noisy = plain + np.random.default_rng(0).integers(-4, 5, plain.shape).astype(np.int8)
    assert border_share(np.stack([plain, noisy.astype(np.uint8)])).tolist() == [1, 1]


def test_a_grey_picture_is_told_from_a_coloured_one() -> None:
    picture = drawn(4, 64, 64)
    grey = np.repeat(picture.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    half = grey.copy()
    half[:32] = (200, 20, 20)
    assert grey_share(np.stack([grey, half])) == pytest.approx([1, 0.5])
    assert grey_share(picture[None])[0] < 0.5


def test_no_pictures_have_no_scores() -> None:
    none = np.zeros((0, 128, 128, 3), np.uint8)
    assert border_share(none).shape == grey_share(none).shape == (0,)
