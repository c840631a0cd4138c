import numpy as np
import pytest
from PIL import Image

from curate.duplicates.verify.registration import MISFIT_LIMIT, register
from curate.pictures.perceptual_hashes import thumbnails, unpacked
from tests.curate.tiny import drawn


def luma(picture: np.ndarray) -> np.ndarray:
    canvas = Image.fromarray(picture).resize((128, 128), Image.Resampling.BOX)
    return unpacked(thumbnails(np.asarray(canvas)[None]))[0]


@pytest.mark.parametrize(
    "crop", [(0, 0, 0, 0), (8, 8, 8, 8), (0, 16, 0, 16), (20, 12, 4, 4), (38, 38, 0, 0)]
)
def test_the_place_of_a_crop_is_found(crop: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = crop
    whole, part = drawn(1, 256, 256), drawn(1, 256, 256)[top : 256 - bottom, left : 256 - right]
    pose = register([luma(whole)], luma(part.copy())).pose[0]
    scale = np.array([256 - left - right, 256 - top - bottom]) / 256
    assert pose[[0, 1], [0, 1]] == pytest.approx(scale, abs=0.02)
    assert pose[:, 2] == pytest.approx(np.array([left - right, top - bottom]) / 256, abs=0.02)


def test_the_whole_is_found_around_its_crop() -> None:
    picture = drawn(2, 200, 200)
    pose = register([luma(picture[20:200, 0:180].copy())], luma(picture)).pose[0]
    assert pose[[0, 1], [0, 1]] == pytest.approx([1 / 0.9, 1 / 0.9], abs=0.02)


def test_a_small_turn_is_found() -> None:
    turned = np.asarray(Image.fromarray(drawn(3, 256, 256)).rotate(3, Image.Resampling.BICUBIC))
    pose = register([luma(drawn(3, 256, 256))], luma(turned)).pose[0]
    # Counterclockwise on the screen: a point of the turned picture came from clockwise of it.
    sine = np.sin(np.deg2rad(3))
    assert pose[0, 1] == pytest.approx(-sine, abs=0.01)
    assert pose[1, 0] == pytest.approx(sine, abs=0.01)


def test_clipped_light_does_not_pull_the_pose() -> None:
    bright = np.clip(drawn(4) * 1.25, 0, 255).astype(np.uint8)
    found = register([luma(drawn(4))], luma(bright))
    assert found.pose[0] == pytest.approx(np.eye(2, 3), abs=0.03)


def test_strangers_fit_nowhere() -> None:
    first = np.concatenate([luma(drawn(seed)) for seed in range(20)])
    misfit = register([first], np.roll(first, 1, axis=0)).misfit
    assert np.median(misfit) > MISFIT_LIMIT
    assert register([first], first).misfit.max() < 0.05


def test_flat_pictures_give_finite_poses() -> None:
    flat = np.full((1, 64, 64), 200, np.float32)
    assert np.isfinite(register([flat], flat).pose).all()
