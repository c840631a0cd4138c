"""When CLIP is no judge of a caption set: said beside the number, and no star for it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from judged_dataset import keys_of, make_dataset, write_captions

from curate.store.dataset import Dataset
from recaption.judging.caption_sets import find_sets
from recaption.judging.compare import compare_captions
from recaption.judging.doubts import kin_doubt
from recaption.judging.measure import measure_captions
from recaption.judging.retrieval import GROUP, over_groups
from recaption.judging.settings import JudgeSettings
from recaption.judging.tables import comparison_text, measures_text

COUNT = 6 * GROUP
QUICK = JudgeSettings(draws=100, fingerprint_pictures=0)


@pytest.fixture(scope="module", params=["sees", "blind"])
def judged(request, tmp_path_factory) -> tuple[Dataset, bool]:
    """Alt texts that a CLIP model tells apart, or does not, and a captioner's captions."""
    dataset = make_dataset(tmp_path_factory.mktemp("judged") / "data", COUNT)
    rows = range(COUNT)
    write_captions(dataset, "alt", {"alt": {row: f"picture {row}" for row in rows}})
    fits = [
        {"row": row, "kind": "short", "text": f"a {row}", "clip_similarity": 0.31} for row in rows
    ]
    write_captions(dataset, "vlm", {}, fits)
    generator = np.random.default_rng(0)
    pictures = generator.standard_normal((COUNT, 32)).astype(np.float16)
    sees = request.param == "sees"
    texts = pictures if sees else generator.standard_normal((COUNT, 32)).astype(np.float16)
    dataset.write_table(
        "embeddings",
        pa.table({"key": keys_of(dataset), "image": list(pictures), "text": list(texts)}),
        "00000",
    )
    scores = np.linspace(0.1, 0.3, COUNT).astype(np.float32)
    dataset.write_table(
        "scores", pa.table({"key": keys_of(dataset), "clip_similarity": scores}), "00000"
    )
    return dataset, sees


def test_alt_texts_have_the_similarity_that_the_scores_table_tells(judged) -> None:
    dataset, _ = judged
    alt, vlm = measure_captions(dataset, QUICK).sets
    assert alt.counts.distributions["clip_similarity"].total == COUNT
    assert alt.counts.distributions["clip_similarity"].mean == pytest.approx(0.2, abs=1e-3)
    assert vlm.counts.distributions["clip_similarity"].mean == pytest.approx(0.31)


def test_a_clip_model_near_chance_is_said_to_be_and_gives_no_star(judged) -> None:
    dataset, sees = judged
    measures = measure_captions(dataset, QUICK, clip_reason="no model")
    assert ("near chance" in measures_text(measures)) is not sees
    assert bool(measures.sets[0].doubts) is not sees
    alt, vlm = find_sets(dataset)
    found = compare_captions(dataset, vlm, alt, QUICK)
    rows = {row.measure: row for row in found.differences}
    assert rows["clip_similarity"].difference.low > 0
    assert rows["clip_similarity"].starred is sees
    assert ("near chance" in comparison_text(found)) is not sees


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_few_groups_are_no_interval(groups: int) -> None:
    found = over_groups(np.random.default_rng(0).random((groups, GROUP)))
    assert np.isfinite(found.value)
    assert np.isnan([found.low, found.high]).all()
    assert np.isfinite(over_groups(np.random.default_rng(0).random((5, GROUP))).low)


@pytest.mark.parametrize(
    ("model", "revision", "clip", "kin"),
    [
        ("coca", "aa", "local-dir:/x/coca", True),  # the very weights
        ("captioner", "bb", "local-dir:/x/clip", True),  # weights of one family
        ("Lab/Captioner", "cc", "hf-hub:lab/clip-b32", True),  # one owner
        ("Other/Captioner", "cc", "hf-hub:lab/clip-b32", False),
        ("captioner", "cc", "ViT-L-14/openai", False),
        ("captioner", "", "ViT-L-14/openai", False),  # a server tells no revision
    ],
)
def test_a_captioner_judged_by_its_makers_clip_is_told(
    tmp_path: Path, model: str, revision: str, clip: str, kin: bool
) -> None:
    record = {"weights": {"open_clip_model": "aa"}, "settings": {"clip_model": clip}}
    dataset = Dataset.create(tmp_path / "data", {"list": "test"}, record)
    table = make_dataset(tmp_path / "other", 1).read_table("samples", "00000")
    dataset.write_table("samples", table, "00000")
    written = {"row": 0, "kind": "short", "text": "a dog"}
    write_captions(dataset, "vlm", {}, [written | {"model": model, "model_revision": revision}])
    (one,) = find_sets(dataset)
    assert (kin_doubt(dataset, one, [{"aa", "bb"}]) is not None) is kin
