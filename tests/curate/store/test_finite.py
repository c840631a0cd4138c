"""A score that is NaN or infinite is unknown: it passes nothing, wherever it comes from."""

import math

import numpy as np
import pyarrow as pa
import pytest

from curate.base.arrow_columns import to_arrow, to_numpy
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from curate.store.sample_view import sample_view
from tests.curate.scored import make_scored

NAN, INF = math.nan, math.inf
SIMILARITY = [0.35, NAN, 0.10, INF, None, -INF]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Scores as an earlier version wrote them: NaN and infinities among them."""
    rows = [
        {
            "key": f"{number:032x}",
            "clip_similarity": value,
            "zero": 0.0,
            "width": 10,
            "height": 10,
            "image": [1.0, NAN if value is None or math.isnan(value) else 0.0],
        }
        for number, value in enumerate(SIMILARITY)
    ]
    pairs = [("exact", rows[0]["key"], rows[number]["key"]) for number in (1, 3)]
    return make_scored(tmp_path_factory.mktemp("scored") / "data", rows, pairs)


@pytest.mark.parametrize(
    ("where", "selected"),
    [
        ("clip_similarity >= 0.28", 1),
        ("clip_similarity > 0.05", 2),
        ("clip_similarity < 0.28", 1),
        ("NOT (clip_similarity < 0.28)", 1),
        ("clip_similarity BETWEEN 0 AND 1e300", 2),
        ("clip_similarity != 0.1", 1),
        ("greatest(clip_similarity, 0.05) > 0.2", 1),
        ("top_fraction(clip_similarity, 1)", 2),
        ("datacomp_top_fraction(clip_similarity, 0.2)", 2),
        ("top_fraction(clip_similarity / zero, 1)", 0),
        ("clip_similarity / zero > 0.2", 0),
        ("zero / zero >= 0.2", 0),
        ("'nan'::DOUBLE > 0.2", 0),
        ("image_embedding[1] > 0.5", 4),
    ],
)
def test_what_is_not_finite_passes_no_comparison(dataset, where, selected):
    settings = SelectSettings(where=where, keep_duplicates=True, overwrite=True)
    assert select(dataset, settings).selected == selected


def test_the_funnel_counts_what_is_not_finite_as_unscored(dataset):
    settings = SelectSettings(
        name="counted", where="clip_similarity >= 0.28", keep_duplicates=True, overwrite=True
    )
    (count,) = select(dataset, settings).funnel
    assert (count.left, count.removed_alone, count.unscored_alone) == (1, 1, 4)


def test_the_view_of_samples_shows_no_score_that_is_not_finite(dataset):
    rows = sample_view(dataset).execute("SELECT clip_similarity FROM sample ORDER BY key")
    assert [value for (value,) in rows.fetchall()] == [0.35, None, 0.10, None, None, None]


@pytest.mark.parametrize("quality", ["clip_similarity", "clip_similarity / 1"])
def test_no_copy_is_the_better_one_for_a_score_that_is_not_finite(dataset, quality):
    settings = SelectSettings(name="copies", quality=[quality], overwrite=True)
    select(dataset, settings)
    kept = dataset.selection_keys("copies")
    assert f"{0:032x}" in kept
    assert f"{1:032x}" not in kept


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_no_model_writes_a_score_that_is_not_finite(kind):
    values = [1.0, NAN, INF, -INF]
    known = [1.0, None, None, None]
    assert to_arrow(np.array(values, kind)).to_pylist() == known
    assert to_arrow(pa.array(values, pa.from_numpy_dtype(kind))).to_pylist() == known
    assert to_arrow(values).to_pylist() == known


def test_an_embedding_with_a_number_that_is_not_finite_is_null_as_a_whole():
    vectors = np.array([[1.0, 0.0], [1.0, NAN], [INF, 0.0]], np.float32)
    assert to_arrow(vectors).to_pylist() == [[1.0, 0.0], None, None]
    stored = pa.array(vectors.tolist(), pa.list_(pa.float32()))
    assert np.isnan(to_numpy(stored)).all(axis=1).tolist() == [False, True, True]
