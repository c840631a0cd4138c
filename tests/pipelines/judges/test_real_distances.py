"""Distances of sets of pictures beside reference implementations and direct sums."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import linalg
from scipy.optimize import linear_sum_assignment

from pipelines.bench.ablation.peer_distances import seeded_features
from pipelines.judges.real import distances

PEERS = json.loads(Path(__file__).with_name("peer_distances.json").read_text())["values"]


@pytest.fixture(scope="module")
def ours():
    x, y = seeded_features()
    mean, deviation = distances.kernel_distance_of_subsets(x, y, size=200)
    return {
        "fid": distances.frechet(x, y),
        "kid_mean": mean,
        "kid_std": deviation,
        "kid_all": distances.kernel_distance(x, y),
        **distances.neighbourhoods(x, y),
        "vendi": distances.vendi(x),
    }


@pytest.mark.parametrize("name", PEERS)
def test_a_distance_is_that_of_its_reference_package(ours, name):
    assert ours[name.partition("/")[0]] == pytest.approx(PEERS[name], rel=1e-4, abs=1e-6)


def test_kid_over_all_pairs_is_the_double_sum(sets):
    x, y = sets

    def mean(a, b, pairs):
        return np.mean([(a[i] @ b[j] / a.shape[1] + 1) ** 3 for i, j in pairs])

    rows = range(len(x))
    others = [(i, j) for i, j in product(rows, rows) if i != j]
    direct = mean(x, x, others) + mean(y, y, others) - 2 * mean(x, y, product(rows, rows))
    assert distances.kernel_distance(x, y) == pytest.approx(direct, rel=1e-6)


def test_cmmd_is_the_double_sum_over_unit_vectors(sets):
    x, y = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in sets)

    def mean(a, b):
        return np.mean([np.exp(-np.sum((p - q) ** 2) / 200) for p, q in product(a, b)])

    direct = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert distances.cmmd(*sets) == pytest.approx(direct, rel=1e-6)


def test_mind_is_the_mean_of_optimal_assignments_on_lines(sets):
    x, y = sets
    along = distances.directions(x.shape[1], 20)
    moved = []
    for direction in along:
        apart = np.subtract.outer(x @ direction, y @ direction) ** 2
        moved.append(apart[linear_sum_assignment(apart)].mean())
    direct = 3 * x.shape[1] * np.mean(moved)
    assert distances.mind(x, y, along) == pytest.approx(direct, rel=1e-5)
    assert distances.mind(x, x[::-1], along) == 0
    with pytest.raises(ValueError, match="equal size"):
        distances.mind(x, y[:-1], along)


def test_mind_of_a_shift_is_three_times_its_square():
    # The mean of (u.s)^2 over the sphere is |s|^2 / D.
    x = np.random.default_rng(0).standard_normal((50, 8))
    shift = np.full(8, 0.5)
    along = distances.directions(8, 20_000)
    assert distances.mind(x, x + shift, along) == pytest.approx(3 * shift @ shift, rel=0.02)


def test_fid_of_fewer_pictures_than_dimensions_is_real_and_symmetric():
    x, y = (part[:20] for part in seeded_features())
    means = np.square(x.mean(0) - y.mean(0)).sum()
    # The root of a product of singular matrices by its eigenvalues, which are real in theory.
    products = np.cov(x, rowvar=False) @ np.cov(y, rowvar=False)
    root = np.sqrt(linalg.eigvals(products).astype(complex)).real.sum()
    direct = means + x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum() - 2 * root
    assert distances.frechet(x, y) == pytest.approx(direct, rel=1e-4)
    assert distances.frechet(y, x) == pytest.approx(distances.frechet(x, y), rel=1e-9)
    assert distances.frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_strips_change_nothing(sets, monkeypatch):
    x, y = sets
    along = distances.directions(x.shape[1], 10)

    def all_of_them():
        near = distances.neighbourhoods(x, y)
        whole = (distances.kernel_distance(x, y), distances.cmmd(x, y), distances.mind(x, y, along))
        return np.array([*whole, *near.values()])

    at_once = all_of_them()
    monkeypatch.setattr(distances, "_STRIP", 7)
    assert all_of_them() == pytest.approx(at_once, rel=1e-9)


def test_vendi_counts_different_pictures():
    three = np.eye(3).repeat(5, axis=0) * 2
    assert distances.vendi(three) == pytest.approx(3)
    assert distances.vendi(np.ones((9, 4))) == pytest.approx(1)


@pytest.fixture(scope="module")
def sets():
    return tuple(part[:40, :16] for part in seeded_features())
