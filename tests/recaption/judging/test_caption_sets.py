"""Which sets there are, on which pictures they are compared, and how tables become measures."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from judged_dataset import keys_of, make_dataset, write_captions

from curate.base.errors import ConfigError, DatasetError
from curate.store.dataset import Dataset
from recaption.judging.annotations import AnnotatedTruth, PictureTruth, TrueObject
from recaption.judging.caption_sets import find_set, find_sets, sample_captions
from recaption.judging.compare import compare_captions
from recaption.judging.counts import count_set
from recaption.judging.measure import measure_captions
from recaption.judging.object_names import phrases
from recaption.judging.plain import plain
from recaption.judging.reader import CaptionReader
from recaption.judging.settings import JudgeSettings
from recaption.judging.tables import comparison_text, measures_text

QUICK = JudgeSettings(draws=200, fingerprint_pictures=40)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Alt texts of 60 pictures, `big` of 40 of them, `small` of 25 of those."""
    dataset = make_dataset(tmp_path / "data", 60)
    write_captions(dataset, "alt", {"alt": {row: f"IMG {row}" for row in range(60)}})
    big = {row: f"A dog and {row} cats." for row in range(40)}
    write_captions(dataset, "big", {"descriptive": big | {50: None}, "short": {0: "a dog"}})
    write_captions(dataset, "small", {"descriptive": {row: f"a car {row}" for row in range(25)}})
    return dataset


def test_sets_are_named_by_source_and_kind_and_alt_comes_first(dataset) -> None:
    sets = find_sets(dataset)
    assert [one.name for one in sets] == [
        "alt",
        "big/short",
        "big/descriptive",
        "small/descriptive",
    ]
    assert find_set(sets, "small") == sets[3]
    assert find_set(sets, "short") == sets[1]
    with pytest.raises(ConfigError, match=r"several caption sets.*big/descriptive, small/desc"):
        find_set(sets, "descriptive")
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        find_sets(dataset, ["smal"])
    with pytest.raises(ConfigError, match="both by small and of kind short"):
        find_sets(dataset, ["small"], ["short"])


def test_sets_of_different_size_are_compared_on_the_same_pictures(dataset) -> None:
    sets = find_sets(dataset, kinds=["alt", "descriptive"])
    sample = sample_captions(dataset, sets, 10)
    assert (sample.shared, sample.candidates, len(sample.keys)) == (True, 25, 10)
    keys = keys_of(dataset)
    rows = [keys.index(key) for key in sample.keys]
    assert sample.texts(sets[0]) == [f"IMG {row}" for row in rows]
    assert sample.texts(sets[1]) == [f"A dog and {row} cats." for row in rows]
    assert sample.texts(sets[2]) == [f"a car {row}" for row in rows]
    again = sample_captions(dataset, sets, 20)
    assert again.keys[:10] == sample.keys  # a larger sample holds the smaller one
    assert sample_captions(dataset, sets, 10, seed=1).keys != sample.keys


def test_sets_without_a_common_picture_are_sampled_to_equal_size_and_paired_with_nothing(
    tmp_path,
) -> None:
    dataset = make_dataset(tmp_path / "data", 30)
    write_captions(dataset, "a", {"short": {row: f"a {row}" for row in range(10)}})
    write_captions(dataset, "b", {"short": {row: f"b {row}" for row in range(10, 30)}})
    one, other = find_sets(dataset)
    sample = sample_captions(dataset, [one, other], 100)
    assert not sample.shared
    assert len(sample.texts(one)) == len(sample.texts(other)) == 10
    with pytest.raises(ConfigError, match="No picture has accepted captions of both a/short"):
        compare_captions(dataset, one, other, QUICK)
    measures = measure_captions(dataset, QUICK)
    assert not measures.shared
    assert "no picture has one of every set" in measures_text(measures)


def test_three_marks_of_a_person_do_not_shrink_what_all_sets_are_compared_on(dataset) -> None:
    write_captions(dataset, "human-ada", {"human": {row: f"a dog {row}" for row in range(3)}})
    (dataset.directory / "tables/captions/big").rename(dataset.directory / "big")
    quick = {"draws": 100, "fingerprint_pictures": 0}
    measures = measure_captions(dataset, JudgeSettings(**quick))
    assert (measures.shared, measures.candidates) == (True, 25)
    counted = {one.set.name: one.counts.accepted for one in measures.sets}
    assert counted["human-ada/human"] == 3
    assert "human-ada/human has too few captions" in measures_text(measures)
    named = measure_captions(dataset, JudgeSettings(kinds=("human", "descriptive"), **quick))
    assert (named.candidates, named.few) == (3, ())


def test_a_picture_with_several_captions_enters_once_with_the_first_accepted(tmp_path) -> None:
    dataset = make_dataset(tmp_path / "data", 1)
    more = [
        {"row": 0, "kind": "short", "text": text, "sample_index": index}
        for index, text in ((2, "third"), (0, None), (1, "second"))
    ]
    write_captions(dataset, "vlm", {}, more)
    (one,) = find_sets(dataset)
    assert sample_captions(dataset, [one], 5).texts(one) == ["second"]


def test_counts_are_of_every_row_with_reasons_and_flags(dataset) -> None:
    counts = count_set(dataset, find_sets(dataset, ["big"], ["descriptive"])[0])
    assert (counts.rows, counts.accepted, counts.rejected, counts.retried) == (41, 40, 1, 1)
    assert counts.reasons == counts.flags == {"loop": 1}
    assert counts.distributions["words"].quantile(0.5) == 5
    assert counts.distributions["clip_tokens"].total == 0


def test_similarities_come_from_the_captions_or_from_scores_of_the_same_text(tmp_path) -> None:
    import hashlib

    dataset = make_dataset(tmp_path / "data", 3)
    more = [{"row": 0, "kind": "short", "text": "own", "clip_similarity": 0.5}]
    write_captions(dataset, "vlm", {"short": {1: "scored", 2: "changed since"}}, more)
    marks = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in ("scored", "before")]
    scores = {
        "key": keys_of(dataset)[1:],
        "kind": ["short"] * 2,
        "source": ["vlm"] * 2,
        "sample_index": pa.array([0, 0], pa.int32()),
        "text_sha256": marks,
        "clip_similarity": pa.array([0.25, 0.75], pa.float32()),
        "clip_sentence_mean": pa.array([0.125, 0.75], pa.float32()),
    }
    dataset.write_table("caption_scores", pa.table(scores), "00000", "vlm")
    (one,) = find_sets(dataset)
    found = count_set(dataset, one).distributions
    assert found["clip_similarity"].values.tolist() == [0.25, 0.5]
    assert found["clip_sentence_mean"].values.tolist() == [0.125]


def test_files_from_before_a_column_was_declared_read_as_null(dataset) -> None:
    import pyarrow.parquet as pq

    path = dataset.table_path("captions", "00000", "small")
    old = pq.read_table(path).drop_columns(["clip_tokens", "clip_similarity", "language"])
    pq.write_table(old, path)
    measures = measure_captions(dataset, JudgeSettings(sources=("small",), draws=200))
    (small,) = measures.sets
    assert small.counts.distributions["clip_tokens"].total == 0
    assert small.sample is not None
    # start, a, car, a token a digit, end; 15 of the 25 numbers have two digits
    assert (small.sample.clip_tokens.p5, small.sample.clip_tokens.p50) == (5, 6)


def test_measures_of_all_sets_make_one_table_and_one_json(dataset) -> None:
    measures = measure_captions(dataset, QUICK, clip_reason="no embeddings were made")
    text = measures_text(measures)
    assert "the same 1 picture, of 1 with a caption of each" in text
    assert "R@1 was not measured: no embeddings were made." in text
    told = {(f.a.name, f.b.name): f.accuracy.value for f in measures.fingerprints}
    assert told["big/descriptive", "small/descriptive"] > 0.9
    record = plain(measures)
    assert record["sets"][2]["set"] == "big/descriptive"
    assert record["sets"][2]["counts"]["distributions"]["clip_similarity"]["mean"] is None


def test_a_set_of_which_nothing_was_accepted_keeps_its_counts_and_shrinks_no_sample(
    dataset,
) -> None:
    write_captions(dataset, "mute", {"short": dict.fromkeys(range(60))})
    settings = JudgeSettings(
        sources=("mute", "small"), kinds=("short", "descriptive"), fingerprint_pictures=0
    )
    mute, small = measure_captions(dataset, settings).sets
    assert (mute.counts.accepted, mute.sample) == (0, None)
    assert small.sample is not None
    assert small.sample.captions == 25


def truth_of(dataset: Dataset, rows: int) -> AnnotatedTruth:
    """Pictures with a dog, a cat and nothing else."""
    pictures = {
        key: PictureTruth((TrueObject("dog"), TrueObject("cat"))) for key in keys_of(dataset)[:rows]
    }
    return AnnotatedTruth("dogs and cats", pictures, CaptionReader(phrases(["dog", "cat", "car"])))


def test_truth_of_few_pictures_is_found_however_large_the_dataset(dataset) -> None:
    settings = JudgeSettings(kinds=("descriptive",), sample=2, draws=200, fingerprint_pictures=0)
    big, small = measure_captions(dataset, settings, truth=truth_of(dataset, 2)).sets
    assert big.rightness is not None
    assert small.rightness is not None
    assert big.rightness.pictures == small.rightness.pictures == 2
    assert big.rightness.recall["object"].value == 1
    assert small.rightness.precision["object"].value == 0
    assert small.rightness.chair_s.value == 1


def test_two_sets_are_compared_picture_by_picture_and_the_label_says_of_what(dataset) -> None:
    big, small = find_sets(dataset, kinds=["descriptive"])
    found = compare_captions(dataset, big, small, QUICK, truth=truth_of(dataset, 25))
    assert found.pictures == 25
    rows = {row.measure: row for row in found.differences}
    assert rows["words"].difference.value == pytest.approx(2)  # five words against three
    assert rows["words"].starred
    assert rows["object precision"].difference.value == 1
    assert rows["CHAIR_s"].difference.value == -1
    assert np.isnan(rows["object recall"].difference.low) or rows["object recall"].starred
    text = comparison_text(found)
    assert "a difference of these captions on these pictures" in text
    assert "Note: clip_similarity is not in the captions table" in text
    with pytest.raises(ConfigError, match="cannot be compared with itself"):
        compare_captions(dataset, big, big, QUICK)


def test_a_dataset_without_captions_says_so_and_a_captioner_that_only_began_is_no_set(
    tmp_path,
) -> None:
    dataset = make_dataset(tmp_path / "data", 1)
    with pytest.raises(DatasetError, match="holds no captions yet"):
        find_sets(dataset)
    dataset.table_directory("captions", "began").mkdir(parents=True)
    write_captions(dataset, "vlm", {"short": {0: "a dog"}})
    assert [one.name for one in find_sets(dataset)] == ["vlm/short"]
