import numpy as np
import pytest

from curate.duplicates.candidates import hamming
from curate.duplicates.candidates.hamming import join_blocks
from curate.duplicates.candidates.hash_pairs import LEADERS, near_hashes


def hashes(count: int, seed: int = 0) -> np.ndarray:
    """Random 64-bit hashes, some of them twice, and some a few bits from another."""
    random = np.random.default_rng(seed)
    out = random.integers(0, 2**64, count, dtype=np.uint64)
    half = count // 2
    out[half:] = out[:half][random.permutation(half)]
    for _ in range(9):
        flipped = np.uint64(1) << random.integers(0, 64, half).astype(np.uint64)
        out[half:] ^= np.where(random.random(half) < 0.5, flipped, np.uint64(0))
    return out


def brute(
    plain: np.ndarray, seen: np.ndarray, radius: int, fresh: np.ndarray | None = None
) -> set[tuple[int, int]]:
    near = np.bitwise_count(seen[:, None] ^ plain[None]) <= radius
    np.fill_diagonal(near, False)
    if fresh is not None:
        near &= fresh[:, None] | fresh[None]
    return set(zip(*(side.tolist() for side in np.nonzero(near)), strict=True))


def found(blocks) -> list[tuple[int, int]]:
    return [pair for a, b, *_ in blocks for pair in zip(a.tolist(), b.tolist(), strict=True)]


@pytest.fixture(autouse=True, params=[1 << 25, 0], ids=["all compared", "tables"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few hashes are compared all; here the tables have to prove themselves on few as well."""
    monkeypatch.setattr(hamming, "_FEW", request.param)


@pytest.mark.parametrize("radius", [0, 1, 2, 4, 8, 11])
def test_the_join_is_exact_and_gives_each_pair_once(radius: int) -> None:
    plain = hashes(600, radius)
    pairs = found(join_blocks(plain, plain, radius))
    own = {(row, row) for row in range(len(plain))}
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute(plain, plain, radius) | own


def test_little_memory_and_more_threads_change_nothing_that_is_found() -> None:
    plain = hashes(3000)
    pairs = sorted(found(join_blocks(plain, plain, 8)))
    assert sorted(found(join_blocks(plain, plain, 8, memory=4000))) == pairs
    assert sorted(found(join_blocks(plain, plain, 8, threads=2))) == pairs


@pytest.mark.parametrize("new", [0, 1, 100, 400])
def test_only_pairs_with_a_fresh_row_are_looked_for(new: int) -> None:
    plain, seen = hashes(400, 1), hashes(400, 1)[::-1].copy()
    fresh = np.zeros(400, bool)
    fresh[np.random.default_rng(0).choice(400, new, replace=False)] = True
    pairs = found(near_hashes(plain, seen, 8, fresh))
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute(plain, seen, 8, fresh)


def test_a_crowd_of_one_hash_gives_a_few_pairs_a_member_and_every_member_meets_the_best() -> None:
    plain = hashes(500)
    plain[100:] = plain[0]
    pairs = found(near_hashes(plain, plain, 8))
    assert len(pairs) == len(set(pairs))
    assert len(pairs) < 500 * 2 * (LEADERS + 1)
    assert {(row, 0) for row in range(100, 500)} <= set(pairs)
    assert set(pairs) <= brute(plain, plain, 8)


def test_a_crowd_and_its_neighbours_give_a_few_pairs_a_member() -> None:
    """Every member's own view lies near the crowd's hash, each a few other bits away."""
    random = np.random.default_rng(0)
    plain = np.full(2000, hashes(2)[0])
    seen = plain ^ (np.uint64(1) << random.integers(0, 64, 2000).astype(np.uint64))
    seen ^= np.uint64(1) << random.integers(0, 64, 2000).astype(np.uint64)
    pairs = found(near_hashes(plain, seen, 8))
    assert len(pairs) == len(set(pairs))
    assert len(pairs) < 2000 * 2 * (LEADERS + 1)
    assert {row for pair in pairs for row in pair} == set(range(2000))
