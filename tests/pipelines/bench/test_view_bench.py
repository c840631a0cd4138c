"""The bench of the search finds what exact search finds, on a small generated dataset."""

from __future__ import annotations

import numpy as np
import pytest

from curate.search import index
from curate.store.dataset import Dataset
from pipelines.bench.view.page import page_figures
from pipelines.bench.view.search import generated, search_figures
from pipelines.bench.view.vectors import MadeVectors

WIDTH = 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return generated(tmp_path_factory.mktemp("generated") / "d", 2000, WIDTH)


def test_the_index_is_measured_beside_exact_search(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "EXACT_UP_TO", 500)
    monkeypatch.setattr(index, "EXACT_AMONG", 200)
    figures = {figure.name: figure for figure in search_figures(dataset, WIDTH, 10, "search")}
    assert all(figures[f"search/{kind}/recall@10"].value >= 0.9 for kind in ("picture", "text"))
    assert figures["search/text_among_1%/recall@10"].value == 1
    assert figures["search/bytes_a_row/all"].value > 2 * WIDTH + 32


def test_the_page_is_started_and_asked(dataset: Dataset) -> None:
    figures = {figure.name: figure.value for figure in page_figures(dataset, 2, "view")}
    asked = ("rule", "order", "window", "search", "search_in_rule")
    assert {f"view/{kind}/median" for kind in asked} <= figures.keys()
    assert all(value > 0 for value in figures.values())


def test_made_vectors_lie_as_those_of_clip_do() -> None:
    made = MadeVectors(64)
    pictures = made.pictures(1000, 0).astype(np.float32)
    _, texts = made.questions(1000)
    assert np.allclose(np.linalg.norm(pictures, axis=1), 1, atol=1e-3)
    assert 0.4 < (pictures[:500] @ pictures[500:].T).mean() < 0.6
    assert (texts @ pictures.T).mean() < 0.3
    assert np.array_equal(made.pictures(10, 0), MadeVectors(64).pictures(10, 0))
    assert not np.array_equal(made.pictures(10, 0), made.pictures(10, 10))
