from itertools import combinations

import numpy as np
import pytest

from curate.duplicates.candidates.look_alikes import LookAlikes


def fan(count: int) -> np.ndarray:
    """Descriptors on an arc, each step wider than the last: the nearer, the likelier the pair."""
    angle = np.cumsum(np.arange(count)) * 2 / count**2
    found = np.zeros((count, 64), np.float16)
    found[:, 0], found[:, 1] = np.cos(angle), np.sin(angle)
    return found


def test_each_sample_keeps_its_likeliest_and_the_rest_is_on_record() -> None:
    every = np.array(list(combinations(range(6), 2)))
    found = LookAlikes(fan(6), most=1)
    found.add(every)
    assert found.pairs().tolist() == [[number, number + 1] for number in range(5)]
    assert found.crowded == 6


@pytest.mark.parametrize("most", [1, 3, 100])
def test_it_does_not_matter_in_which_parts_pairs_come(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = np.array(list(combinations(range(40), 2)))
    whole = LookAlikes(fan(40), most)
    whole.add(every)
    monkeypatch.setattr("curate.duplicates.candidates.look_alikes._ROOM", 70)
    parts = LookAlikes(fan(40), most)
    np.random.default_rng(0).shuffle(every)
    for start in range(0, len(every), 50):
        parts.add(every[start : start + 60])  # some twice
    assert parts.pairs().tolist() == whole.pairs().tolist()
    assert parts.crowded == whole.crowded == (0 if most == 100 else 40)


def test_descriptors_that_say_strangers_are_believed() -> None:
    descriptor = np.eye(3, 64, dtype=np.float16)
    found = LookAlikes(descriptor, most=4)
    found.add(np.array([[0, 1], [1, 2]]))
    assert not len(found.pairs())
