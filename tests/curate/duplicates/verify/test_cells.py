import numpy as np

from curate.duplicates.verify.cells import cornered_share, flat_share, spread_out, summed


def test_flat_pictures_stripes_and_gradients_have_no_corners_and_checkers_have() -> None:
    line = (np.arange(64) // 8 % 2 * 80).astype(np.float32)
    rows = np.tile(line[:, None], (1, 64))
    grade = np.tile(np.linspace(0, 200, 64, dtype=np.float32), (64, 1))
    checker = np.abs(line[:, None] - line[None])
    pictures = np.stack([np.full((64, 64), 90, np.float32), rows, rows.T, grade, checker])
    share = cornered_share(pictures)
    assert share[:4].max() == 0
    assert share[4] > 0.9


def test_a_disc_on_stripes_has_corners_where_it_is() -> None:
    y, x = np.mgrid[:64, :64]
    picture = (y // 8 % 2 * 80 + 60).astype(np.float32)
    picture[(y - 20) ** 2 + (x - 40) ** 2 < 81] = 200
    assert 0.03 < cornered_share(picture[None])[0] < 0.2


def test_flat_share_counts_points_without_anything_around_them() -> None:
    picture = np.full((1, 64, 64), 50, np.float32)
    picture[:, :, 32:] = np.random.default_rng(0).uniform(0, 255, (64, 32))
    assert 0.45 < flat_share(picture)[0] < 0.5


def test_sums_over_cells_and_back() -> None:
    cells = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    assert np.array_equal(summed(spread_out(cells)), 64 * cells)
