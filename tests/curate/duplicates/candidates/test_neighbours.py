from pathlib import Path

import numpy as np
import pytest

from curate.duplicates.candidates.clusters import Tree, train
from curate.duplicates.candidates.hamming import join_blocks
from curate.duplicates.candidates.neighbours import (
    CROWD,
    nearest_vectors,
    similar_pairs,
    unique_pairs,
)
from curate.duplicates.candidates.vectors import ArrayVectors, FileVectors


def hamming_join(index, queries, radius):
    """(query row, index row) of all pairs, ordered by query and then by index row."""
    blocks = list(join_blocks(index, queries, radius))
    if not blocks:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    query, row = (np.concatenate([block[side] for block in blocks]) for side in (0, 1))
    order = np.lexsort((row, query))
    return query[order], row[order]


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


def crowded(count: int, width: int = 32, seed: int = 0) -> np.ndarray:
    """Unit vectors around a few directions, so that some products are large."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(count // 20, width))
    vectors = centres[random.integers(0, len(centres), count)]
    vectors = vectors + random.normal(size=(count, width)) * 0.4
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def similar(vectors, least, **options) -> list[tuple[int, int]]:
    blocks = similar_pairs(vectors, least, **options)
    return [pair for block in blocks for pair in map(tuple, block.pairs.tolist())]


def brute_similar(vectors: np.ndarray, least: float) -> set[tuple[int, int]]:
    near = np.triu(vectors @ vectors.T >= least, 1)
    return set(zip(*(side.tolist() for side in np.nonzero(near)), strict=True))


def test_similar_pairs_without_clusters_are_all_of_them_once() -> None:
    vectors = crowded(700)
    pairs = similar(ArrayVectors(vectors), 0.8)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute_similar(vectors, 0.8)


def test_clusters_find_nearly_all_similar_pairs_each_once_and_no_other() -> None:
    vectors = crowded(6000)
    held = ArrayVectors(vectors)
    pairs = similar(held, 0.85, tree=train(held))
    expected = brute_similar(vectors, 0.85)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) <= expected
    assert len(pairs) >= 0.98 * len(expected)


def test_old_pairs_and_fresh_pairs_together_are_all_pairs_under_the_same_centroids() -> None:
    vectors = crowded(6000)
    held = ArrayVectors(vectors)
    tree = train(held)
    fresh = np.random.default_rng(1).random(6000) < 0.2
    old = np.flatnonzero(~fresh)
    before = {(old[a], old[b]) for a, b in similar(ArrayVectors(vectors[old]), 0.85, tree=tree)}
    later = similar(held, 0.85, tree=tree, fresh=fresh)
    assert all(fresh[a] or fresh[b] for a, b in later)
    assert before | set(later) == set(similar(held, 0.85, tree=tree))


def test_vectors_in_a_file_and_little_memory_give_the_same_pairs(tmp_path: Path) -> None:
    vectors = crowded(5000).astype(np.float16)
    vectors.tofile(tmp_path / "vectors.f16")
    filed, held = FileVectors(tmp_path / "vectors.f16", 32), ArrayVectors(vectors)
    tree = train(held)
    expected = sorted(similar(held, 0.85, tree=tree))
    assert sorted(similar(filed, 0.85, tree=train(filed), memory=100_000)) == expected
    rows, _ = nearest_vectors(filed, 3, memory=100_000)
    assert (rows == nearest_vectors(vectors, 3)[0]).all()


def test_a_crowd_of_equal_vectors_gives_few_pairs_a_member_and_the_best_is_among_them() -> None:
    vectors = np.tile(crowded(20)[:1], (3000, 1))
    pairs = similar(ArrayVectors(vectors), 0.9)
    assert len(pairs) <= 3000 * CROWD
    assert {(0, row) for row in range(1, 3000)} <= set(pairs)


def test_an_old_row_is_told_of_its_nearest_new_ones_alone() -> None:
    vectors = crowded(900)
    fresh = np.zeros(900, bool)
    fresh[::7] = True
    rows, squared = nearest_vectors(vectors, 2, fresh=fresh)
    distance = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    distance[np.ix_(~fresh, ~fresh)] = np.inf
    assert np.allclose(squared, np.sort(distance, axis=1)[:, :2], atol=1e-4)
    assert (fresh[rows[~fresh]]).all()


def test_stored_centroids_are_the_same_centroids(tmp_path: Path) -> None:
    vectors = crowded(5000)
    tree = train(ArrayVectors(vectors))
    tree.save(tmp_path / "tree.npz")
    assert (Tree.load(tmp_path / "tree.npz").nearest(vectors) == tree.nearest(vectors)).all()
