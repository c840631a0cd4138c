"""Caption sets of a dataset before anything is trained on them."""

from pathlib import Path

import pyarrow as pa
import pytest

from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from pipelines.world.caption_scores import CAPTION_SCORES, caption_scores
from pipelines.world.caption_truth import WorldTruth
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.writers import habitual_descriptive, habitual_short
from recaption.judging.caption_sets import CaptionSet


def test_every_accepted_caption_of_a_set_counts(tmp_path: Path) -> None:
    scenes = sample_scenes(WorldConfig.small(), 40, seed=1)
    long, short = habitual_descriptive(scenes), habitual_short(scenes)
    rows = [
        {"key": f"{row:02d}", "kind": kind, "sample_index": index, "text": text, "status": "ok"}
        | {"words": len(text.split()), "clip_similarity": similarity}
        for kind, index, texts, similarity in (
            ("descriptive", 0, long, 0.5),
            ("random_length", 0, short, None),
            ("random_length", 1, long, None),
            ("shuffled", 0, long[1:] + long[:1], 0.25),
        )
        for row, text in enumerate(texts)
    ]
    rows.append(rows[0] | {"sample_index": 1, "text": "a dog", "status": "rejected"})
    dataset = Dataset.create(tmp_path / "dataset", {"list": "test"}, {})
    table = pa.Table.from_pylist([dict.fromkeys(CAPTIONS.names) | row for row in rows], CAPTIONS)
    dataset.write_table("captions", table, "00000", "world")
    truth = WorldTruth({f"{row:02d}": scene for row, scene in enumerate(scenes)})
    sets = [CaptionSet("world", kind) for kind in ("descriptive", "random_length", "shuffled")]
    found = caption_scores(dataset, truth, sets)
    assert found.schema.equals(CAPTION_SCORES)
    right, mixed, wrong = found.to_pylist()
    assert (right["captions"], right["whole_precision"], right["whole_recall"]) == (40, 1, 1)
    assert right["words"] == pytest.approx(sum(len(text.split()) for text in long) / 40)
    assert (right["clip_similarity"], mixed["clip_similarity"]) == (0.5, None)
    # The short half states one object each, without its place.
    assert (mixed["captions"], mixed["object_precision"]) == (80, 1)
    assert mixed["whole_recall"] == 0.5 < mixed["object_recall"] < 1
    assert wrong["whole_precision"] < 0.1 < wrong["object_precision"]
    few = caption_scores(dataset, truth, sets[:1], keys=["03", "05"])
    assert few["captions"].to_pylist() == [2]
