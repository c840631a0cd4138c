import numpy as np
import pytest

from curate.neighbours import hamming_join, nearest_vectors, unique_pairs


def brute(index: np.ndarray, queries: np.ndarray, radius: int) -> list[tuple[int, int]]:
    apart = np.bitwise_count(queries[:, None] ^ index[None])
    return list(zip(*(side.tolist() for side in np.nonzero(apart <= radius)), strict=True))


@pytest.mark.parametrize("radius", [0, 3, 8, 11])
def test_the_join_finds_exactly_the_pairs_within_the_radius(radius: int) -> None:
    random = np.random.default_rng(radius)
    index = random.integers(0, 2**63, 400).astype(np.uint64)
    queries = index[:200].copy()
    for _ in range(radius + 2):  # up to radius + 2 bits away, so some just outside
        queries ^= np.uint64(1) << random.integers(0, 64, 200).astype(np.uint64)
    query, row = hamming_join(index, queries, radius)
    assert list(zip(query.tolist(), row.tolist(), strict=True)) == brute(index, queries, radius)


def test_all_sixty_four_bits_count() -> None:
    index = np.array([0], np.uint64)
    queries = np.uint64(1) << np.arange(64, dtype=np.uint64)
    assert len(hamming_join(index, queries, 0)[0]) == 0
    assert len(hamming_join(index, queries, 1)[0]) == 64


def test_nearest_vectors_leave_out_the_row_itself() -> None:
    vectors = np.array([[0, 0], [0, 0], [1, 0], [9, 9]], np.float32)
    rows, squared = nearest_vectors(vectors, 2)
    assert set(rows[0].tolist()) == {1, 2}
    assert rows[3, 0] == 2
    assert squared[0].tolist() == [0, 1]
    assert all(row not in rows[row] for row in range(4))


def test_fewer_vectors_than_asked_for_give_minus_one() -> None:
    rows, _ = nearest_vectors(np.eye(2, dtype=np.float32), 3)
    assert rows.tolist() == [[1, -1, -1], [0, -1, -1]]


def test_clusters_lose_few_close_neighbours() -> None:
    random = np.random.default_rng(0)
    base = random.normal(size=(3000, 32)).astype(np.float32)
    vectors = np.concatenate([base, base + random.normal(size=base.shape).astype(np.float32) / 10])
    rows, _ = nearest_vectors(vectors, 1)
    expected = (np.arange(6000) + 3000) % 6000
    assert (rows[:, 0] == expected).mean() > 0.98


def test_pairs_are_unordered_and_unique() -> None:
    pairs = unique_pairs(np.array([3, 1, 1, 2]), np.array([1, 3, 2, 2]))
    assert pairs.tolist() == [[1, 2], [1, 3]]
