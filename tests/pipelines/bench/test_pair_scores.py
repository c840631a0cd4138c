"""The parts of `caplab bench pair-scores` that its figures hang on."""

import numpy as np
import pytest

from pipelines.bench.score.pair_scores import auc, divided


def test_auc_is_the_chance_of_the_right_order() -> None:
    scores, good = np.array([3.0, 1.0, 2.0, 2.0]), np.array([True, False, False, True])
    assert auc(scores, good) == pytest.approx(3.5 / 4)  # one tie


def test_a_division_into_one_batch_is_the_contrastive_loss() -> None:
    random = np.random.default_rng(0)
    image, text = (random.normal(size=(6, 4)) for _ in range(2))
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    s = image @ text.T / 0.3
    log_softmax = [s - np.log(np.exp(s).sum(axis, keepdims=True)) for axis in (0, 1)]
    wanted = 0.3 * (np.diag(log_softmax[0]) + np.diag(log_softmax[1])) / 2
    assert divided(image, text, 0.3, 6, 2, seed=0) == pytest.approx(wanted)
