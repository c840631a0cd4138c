"""The order of the stream: every row once an epoch, whoever asks, from wherever."""

import numpy as np
import pytest

from train.data.index import Bucket
from train.data.order import REPEAT, DataOrder, _permuted


def one(rows: int) -> list[Bucket]:
    return [Bucket(16, 16, 0, rows)]


def stream(order: DataOrder, steps: int) -> tuple[np.ndarray, np.ndarray]:
    rows, epochs = zip(*(order.batch(step) for step in range(steps)), strict=True)
    return np.concatenate(rows), np.concatenate(epochs)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_the_bijection_is_one(count: int) -> None:
    for key in range(5):
        images = _permuted(np.arange(count), count, np.uint64(key))
        assert sorted(images.tolist()) == list(range(count))


def test_a_bijection_of_a_billion_rows_costs_a_batch() -> None:
    places = np.arange(10**9, 10**9 + 1000)
    images = _permuted(places, 10**12, np.uint64(1))
    assert len(np.unique(images)) == 1000
    assert images.min() >= 0
    assert images.max() < 10**12


@pytest.mark.parametrize("count", [7, 30])
def test_every_row_is_as_likely_at_every_place(count: int) -> None:
    keys = 3000
    at = np.stack([_permuted(np.arange(count), count, np.uint64(key)) for key in range(keys)])
    for row in range(count):
        counts = (at == row).sum(0)
        chi_square = ((counts - keys / count) ** 2 / (keys / count)).sum()
        # Its mean is count - 1 and its variance 2 (count - 1): six deviations.
        assert chi_square < count - 1 + 6 * np.sqrt(2 * (count - 1))


def test_neighbours_do_not_stay_neighbours() -> None:
    at = _permuted(np.arange(10_000), 10_000, np.uint64(3))
    assert abs(np.corrcoef(at[1:], at[:-1])[0, 1]) < 0.05
    assert (np.abs(np.diff(at)) == 1).mean() < 0.002


@pytest.mark.parametrize("block", [0, 3, 4, 10, 50])
def test_an_epoch_shows_every_row_once(block: int) -> None:
    rows, epochs = stream(DataOrder(one(10), 4, 0, block), 10)
    assert epochs.tolist() == np.repeat(np.arange(4), 10).tolist()
    epochs_rows = rows.reshape(4, 10)
    for own in epochs_rows:
        assert sorted(own.tolist()) == list(range(10))
    assert len({tuple(own) for own in epochs_rows.tolist()}) > 1


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    order, fresh = DataOrder(one(1000), 64, 3, block=100), DataOrder(one(1000), 64, 3, block=100)
    stream(order, 40)
    np.testing.assert_array_equal(fresh.batch(37)[0], order.batch(37)[0])
    assert not np.array_equal(DataOrder(one(1000), 64, 4).batch(37)[0], fresh.batch(37)[0])


def test_a_block_is_finished_before_the_next_begins() -> None:
    rows, _ = stream(DataOrder(one(1000), 50, 0, block=100), 20)
    for part in rows.reshape(10, 100):
        # Neighbours among themselves, except where the rows' end lies inside.
        assert (np.sort(part)[-1] - np.sort(part)[0] == 99) or {0, 999} <= set(part.tolist())
    assert abs(np.corrcoef(rows[:100], np.arange(100))[0, 1]) < 0.4


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_a_batch_without_overlap_or_loss(world: int) -> None:
    order = DataOrder(one(37), 8, 0)
    share = 8 // world
    for step in (0, 4, 5):
        parts = [order.batch(step)[0][rank * share :][:share] for rank in range(world)]
        np.testing.assert_array_equal(
            np.concatenate(parts), DataOrder(one(37), 8, 0).batch(step)[0]
        )


@pytest.mark.parametrize("sizes", [(30, 7, 13), (3, 100), (1, 1, 1)])
def test_every_bucket_is_shown_as_on_its_own(sizes: tuple[int, ...]) -> None:
    ends = np.cumsum(sizes)
    buckets = [Bucket(16, 16, int(end - n), int(end)) for end, n in zip(ends, sizes, strict=True)]
    order = DataOrder(buckets, 4, 1)
    # After a batch size of epochs every bucket has filled its batches exactly.
    steps = sum(sizes)
    seen = []
    for step in range(steps):
        rows, epochs = order.batch(step)
        inside = [(rows >= b.start) & (rows < b.stop) for b in buckets]
        assert max(here.all() for here in inside)
        seen += list(zip(rows.tolist(), epochs.tolist(), strict=True))
    assert len(set(seen)) == len(seen) == 4 * steps
    assert {epoch for _, epoch in seen} == {0, 1, 2, 3}


def test_weights_are_exact_to_one_draw_an_epoch() -> None:
    weights = np.random.default_rng(0).gamma(1.0, size=200)
    weights[17] = 0
    order = DataOrder(one(200), 8, 0, cumulative_weights=np.cumsum(weights))
    rows, visits = stream(order, 50)
    shares = weights / weights.sum() * 200
    for epoch in (0, 1):
        counts = np.bincount(rows[visits % REPEAT == epoch], minlength=200)
        assert counts.sum() == 200
        assert (counts >= np.floor(shares)).all()
        assert (counts <= np.ceil(shares)).all()
    # Each time a row is shown it is another visit, so that its captions are drawn anew.
    assert len(set(zip(rows.tolist(), visits.tolist(), strict=True))) == len(rows)
    assert visits[visits < REPEAT].max() == 1


def test_equal_weights_show_every_row_once() -> None:
    order = DataOrder(one(50), 10, 0, cumulative_weights=np.cumsum(np.full(50, 0.3)))
    rows, visits = stream(order, 10)
    assert sorted(rows[:50].tolist()) == sorted(rows[50:].tolist()) == list(range(50))
    assert (visits == np.repeat([0, 1], 50)).all()


def test_weights_share_draws_among_buckets() -> None:
    buckets = [Bucket(16, 16, 0, 30), Bucket(32, 16, 30, 60)]
    weights = np.repeat([1.0, 3.0], 30)
    rows, _ = stream(DataOrder(buckets, 6, 0, cumulative_weights=np.cumsum(weights)), 400)
    assert (rows >= 30).mean() == pytest.approx(0.75, abs=0.02)
    counts = np.bincount(rows, minlength=60)
    assert np.ptp(counts[30:]) <= 4
