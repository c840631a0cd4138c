import numpy as np

from curate.duplicates.verify.layout import far_cells, may_be_copies
from curate.pictures.perceptual_hashes import thumbnails, unpacked
from tests.curate.tiny import drawn


def scene(ground: tuple[int, int, int], left: int = 30, level: int = 250) -> np.ndarray:
    """The thumbnail of a small square on one ground, (1, 4608)."""
    canvas = np.full((1, 128, 128, 3), ground, np.uint8)
    canvas[:, 40:60, left : left + 20] = level
    return thumbnails(canvas)


def test_plain_pictures_need_descriptors_that_are_alike() -> None:
    one, same = scene((200, 40, 40)), scene((200, 40, 40), left=34)
    both = np.concatenate([one, one]), np.concatenate([same, same])
    assert may_be_copies(*both, np.array([0.7, 0.9], np.float32)).tolist() == [False, True]


def test_plain_pictures_on_other_grounds_are_no_copies() -> None:
    alike = np.array([0.9], np.float32)
    assert not may_be_copies(scene((200, 40, 40)), scene((40, 40, 200)), alike)[0]
    assert may_be_copies(scene((200, 40, 40)), scene((140, 28, 28)), alike)[0]  # darker


def test_pictures_full_of_detail_are_left_to_their_pixels() -> None:
    canvas = np.stack([drawn(number, 128, 128) for number in (1, 2)])
    small = thumbnails(canvas)
    assert may_be_copies(small[:1], small[1:], np.zeros(1, np.float32))[0]


def test_a_mirror_image_and_a_grey_copy_have_no_far_cells() -> None:
    canvas = np.full((1, 128, 128, 3), (200, 40, 40), np.uint8)
    canvas[:, :, 64:] = (40, 40, 200)
    colour = unpacked(thumbnails(canvas))[1]
    assert far_cells(colour, colour[..., ::-1]).tolist() == [0]
    assert far_cells(colour, np.zeros_like(colour)).tolist() == [0]
    red, blue = (np.broadcast_to(colour[:, :, :1, at : at + 1], colour.shape) for at in (0, 15))
    assert far_cells(red, blue).tolist() == [64]


def test_no_pairs_are_no_verdicts() -> None:
    none = np.empty((0, 4608), np.uint8)
    assert not len(may_be_copies(none, none, np.empty(0, np.float32)))
