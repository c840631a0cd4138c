import numpy as np

from curate.duplicates.tables import keep_best


def one_after_the_other(pairs: list[tuple[int, int]], rank: list[int]) -> list[int]:
    """The rule as a person would carry it out."""
    near: dict[int, set[int]] = {row: set() for row in range(len(rank))}
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    keeper: dict[int, int] = {}
    for row in sorted(range(len(rank)), key=lambda row: rank[row]):
        kept = [other for other in near[row] if keeper.get(other) == other]
        keeper[row] = min(kept, key=lambda other: rank[other]) if kept else row
    return [keeper[row] for row in range(len(rank))]


def test_a_chain_keeps_both_ends() -> None:
    # b is near a and c, but a and c are not near each other.
    assert keep_best(np.array([[0, 1], [1, 2]]), np.array([0, 1, 2])).tolist() == [0, 0, 2]


def test_the_best_in_the_middle_drops_its_neighbours() -> None:
    assert keep_best(np.array([[0, 1], [1, 2]]), np.array([1, 0, 2])).tolist() == [1, 1, 1]


def test_rounds_of_arrays_give_what_going_one_by_one_gives() -> None:
    random = np.random.default_rng(0)
    for rows, edges in ((30, 20), (30, 60), (60, 400), (200, 250)):
        rank = random.permutation(rows)
        pairs = random.integers(0, rows, (edges, 2))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        expected = one_after_the_other([tuple(pair) for pair in pairs.tolist()], rank.tolist())
        assert keep_best(pairs, rank).tolist() == expected


def test_nothing_near_keeps_everything() -> None:
    assert keep_best(np.empty((0, 2), np.int64), np.arange(3)).tolist() == [0, 1, 2]
