import numpy as np
import pytest
from PIL import Image

from curate.registration import coarse_difference, compare
from tests.curate.tiny import drawn


def thumbnail(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX))


def agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    found = compare(thumbnail(a)[None], thumbnail(b)[None])
    return float(found.difference[0]), float(found.worst[0]), float(found.detail[0])


@pytest.mark.parametrize("crop", [(0, 0, 0, 0), (8, 8, 8, 8), (0, 16, 0, 16), (20, 12, 4, 4)])
def test_a_crop_agrees_and_its_place_is_found(crop: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = crop
    whole = thumbnail(drawn(1, 256, 256))
    part = thumbnail(drawn(1, 256, 256)[top : 256 - bottom, left : 256 - right].copy())
    found = compare(whole[None], part[None])
    assert found.difference[0] < 0.02
    assert found.detail[0] > 0.85
    scale = np.array([256 - left - right, 256 - top - bottom]) / 256
    assert found.scale[0] == pytest.approx(scale, abs=0.02)
    assert found.shift[0] == pytest.approx(np.array([left - right, top - bottom]) / 256, abs=0.02)


def test_the_order_of_the_two_does_not_matter_for_a_crop() -> None:
    picture = drawn(2, 200, 200)
    whole, part = thumbnail(picture), thumbnail(picture[10:190, 10:190].copy())
    for a, b in ((whole, part), (part, whole)):
        assert compare(a[None], b[None]).difference[0] < 0.02


def test_a_change_of_light_is_no_difference() -> None:
    darker = (drawn(3) * 0.7 + 20).astype(np.uint8)
    difference, _, detail = agreement(drawn(3), darker)
    assert difference < 0.02
    assert detail > 0.95


def test_other_colours_are_a_difference() -> None:
    difference, _, _ = agreement(drawn(3), drawn(3)[..., [1, 2, 0]].copy())
    assert difference > 0.3


def test_different_pictures_do_not_agree() -> None:
    for seed in range(10, 20):
        difference, _, detail = agreement(drawn(seed), drawn(seed + 10))
        assert difference > 0.3
        assert detail < 0.5


def test_one_exchanged_object_shows_where_it_is_worst() -> None:
    scene = drawn(4, 128, 128)
    other = scene.copy()
    other[52:68, 52:68] = 255 - other[52:68, 52:68]
    difference, worst, _ = agreement(scene, other)
    assert worst > 5 * difference
    assert worst > 0.2


def test_a_label_in_the_corner_is_forgiven() -> None:
    labelled = drawn(5, 128, 128).copy()
    labelled[:12, :50] = 30
    difference, worst, detail = agreement(drawn(5, 128, 128), labelled)
    assert difference < 0.02
    assert worst < 0.1
    assert detail > 0.85


def test_flat_pictures_are_not_divided_by_zero() -> None:
    flat = np.full((1, 32, 32, 3), 200, np.uint8)
    found = compare(flat, flat)
    assert np.isfinite(found.difference).all()
    assert np.isfinite(found.detail).all()


def test_the_coarse_check_lets_copies_pass_and_stops_strangers() -> None:
    a = np.stack([thumbnail(drawn(i, 128, 128)) for i in range(20)])
    cropped = np.stack([thumbnail(drawn(i, 128, 128)[4:124, 4:124].copy()) for i in range(20)])
    assert coarse_difference(a, cropped, crop=8 / 128).max() < 0.1
    assert coarse_difference(a, np.roll(a, 1, axis=0)).min() > 0.5
