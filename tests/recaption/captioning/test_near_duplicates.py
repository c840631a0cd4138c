import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.store.contract import CAPTIONS, DUPLICATES
from curate.store.dataset import Dataset
from recaption.captioning.near_duplicates import COMPARED_IN_A_BUCKET, mark_near_duplicates
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.signature import HASHES, agreement, signatures
from recaption.gates.gates import count_words
from recaption.gates.registry import DEFAULT_REJECTS, NEAR_DUPLICATE

WORDS = [f"word{number}" for number in range(2000)]
BOAT = (
    "A white fishing boat lies at a stone quay, its nets spread over the deck to dry, while two "
    "gulls sit on the mast and a man in a blue jumper mends a rope in the evening light."
)
SIGNATURE_OF_BOAT = "6e7762368c41800a"
BOAT_AGAIN = BOAT.replace("two gulls", "three gulls")
HILL = (
    "A green hill with a single oak stands under a pale sky; a path of gravel winds up to it past "
    "a low wall, and a dog waits where the path meets a wooden gate."
)


def random_text(seed: int, words: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def settings_of(**given: object) -> RecaptionSettings:
    return RecaptionSettings(captioner="x", **given)


def write(
    dataset: Dataset, shard: str, captions: list[tuple[str, str, str]], **more: object
) -> None:
    """(key, picture, text) as accepted captions of a source "vlm"."""
    rows = []
    for key, picture, text in captions:
        row = dict.fromkeys(CAPTIONS.names) | {"key": key, "kind": "descriptive", "text": text}
        row |= {"raw_text": f"The image shows {text}", "status": "ok", "sample_index": 0}
        row |= {"flags": ["banned_opening"], "finish_reason": "stop", "image_sha256": picture}
        row |= {"signature": signatures([text])[0], "words": int(count_words([text])[0]), **more}
        rows.append(row)
    dataset.write_table("captions", pa.Table.from_pylist(rows, CAPTIONS), shard, "vlm")


def rows_of(dataset: Dataset) -> dict[str, dict]:
    folder = dataset.table_directory("captions", "vlm")
    shards = sorted(path.stem for path in folder.glob("*.parquet"))
    tables = [dataset.read_table("captions", shard, "vlm") for shard in shards]
    return {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}


def marked(dataset: Dataset) -> set[str]:
    return {key for key, row in rows_of(dataset).items() if NEAR_DUPLICATE in row["flags"]}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset.create(tmp_path / "set", {"made": "by a test"}, {})


def test_signatures_agree_as_often_as_the_texts_share_runs_of_three_words() -> None:
    for changed in (0, 1, 3, 8):
        one = random_text(0, 60).split()
        errors = []
        for seed in range(30):
            other = list(one)
            for place in random.Random(seed).sample(range(60), changed):
                other[place] = f"other{seed}"
            runs = [{tuple(t[i : i + 3]) for i in range(58)} for t in (one, other)]
            truth = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
            numbers = [
                np.frombuffer(s, "<u2").reshape(1, HASHES)
                for s in signatures([" ".join(one), " ".join(other)])
            ]
            errors.append(agreement(*numbers)[0] - truth)
        assert abs(np.mean(errors)) < 0.05, "without bias"
        assert np.std(errors) < 0.1


def test_signatures_never_change_and_look_past_case_and_punctuation() -> None:
    assert signatures([BOAT])[0].hex().startswith(SIGNATURE_OF_BOAT)
    assert signatures([BOAT.upper().replace(",", "")]) == signatures([BOAT])
    assert signatures(["", "a", "一只狗"])[0] != signatures(["a"])[0]
    assert signatures([]) == []


def test_a_caption_that_nearly_repeats_one_of_another_picture_is_marked_in_every_shard(
    dataset: Dataset,
) -> None:
    write(dataset, "00000", [("a", "p1", BOAT), ("b", "p2", HILL)])
    write(dataset, "00001", [("c", "p3", BOAT_AGAIN), ("d", "p4", random_text(1))])
    counts = mark_near_duplicates(dataset, "vlm", settings_of())
    assert counts == {"compared": 4, NEAR_DUPLICATE: 2, "lost": 0}
    assert marked(dataset) == {"a", "c"}
    rows = rows_of(dataset)
    assert rows["a"]["flags"] == ["banned_opening", NEAR_DUPLICATE]
    assert rows["a"]["status"] == "ok"
    assert rows["a"]["text"] == BOAT, "it is marked, not rejected"


def test_captions_of_one_picture_may_repeat(dataset: Dataset) -> None:
    write(dataset, "00000", [("a", "p1", BOAT), ("b", "p1", BOAT), ("c", "p1", BOAT_AGAIN)])
    assert mark_near_duplicates(dataset, "vlm", settings_of())[NEAR_DUPLICATE] == 0
    # The same with a fourth row of another picture: now all of them repeat somebody else's.
    write(dataset, "00001", [("d", "p2", BOAT)])
    mark_near_duplicates(dataset, "vlm", settings_of())
    assert marked(dataset) == {"a", "b", "c", "d"}


def test_pictures_that_are_duplicates_of_each_other_may_be_told_alike(dataset: Dataset) -> None:
    write(dataset, "00000", [("a", "p1", BOAT), ("b", "p2", BOAT_AGAIN), ("c", "p3", HILL)])
    groups = [
        {"method": "near", "key": key, "group": "a", "kept": key == "a", "distance": 1.0}
        for key in ("a", "b")
    ]
    dataset.write_table("duplicates", pa.Table.from_pylist(groups, DUPLICATES))
    assert mark_near_duplicates(dataset, "vlm", settings_of())[NEAR_DUPLICATE] == 0


def test_captions_of_another_kind_and_short_ones_may_repeat(dataset: Dataset) -> None:
    write(dataset, "00000", [("a", "p1", BOAT), ("b", "p2", "a red circle on a gray ground")])
    write(dataset, "00001", [("c", "p3", "a red circle on a gray ground")])
    write(dataset, "00002", [("d", "p4", BOAT)], kind="poem")
    assert mark_near_duplicates(dataset, "vlm", settings_of())[NEAR_DUPLICATE] == 0
    mark_near_duplicates(dataset, "vlm", settings_of(near_duplicate_words=5))
    assert marked(dataset) == {"b", "c"}


def test_a_second_call_and_another_order_of_shards_change_no_byte(tmp_path: Path) -> None:
    captions = [(f"k{n}", f"p{n}", random_text(n % 7)) for n in range(40)]
    files = []
    for order in (captions, captions[::-1]):
        dataset = Dataset.create(tmp_path / str(len(files)), {"made": "by a test"}, {})
        for shard in range(4):
            some = sorted(order[shard::4]) if not files else order[shard * 10 : shard * 10 + 10]
            write(dataset, f"{shard:05d}", some)
        mark_near_duplicates(dataset, "vlm", settings_of())
        path = dataset.table_path("captions", "00000", "vlm")
        before = path.read_bytes(), path.stat().st_mtime_ns
        mark_near_duplicates(dataset, "vlm", settings_of())
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before
        files.append({key: row["flags"] for key, row in rows_of(dataset).items()})
    assert files[0] == files[1]
    assert not list(dataset.directory.glob(".scratch/near-duplicates-*"))


def test_a_rejected_caption_comes_back_when_it_repeats_nobody_any_more(dataset: Dataset) -> None:
    strict = settings_of(reject=(*DEFAULT_REJECTS, NEAR_DUPLICATE))
    write(dataset, "00000", [("a", "p1", BOAT), ("b", "p2", BOAT_AGAIN)])
    before = rows_of(dataset)
    mark_near_duplicates(dataset, "vlm", strict)
    row = rows_of(dataset)["a"]
    assert (row["status"], row["reason"], row["text"]) == ("rejected", NEAR_DUPLICATE, None)
    assert row["signature"] is not None
    mark_near_duplicates(dataset, "vlm", strict)
    assert marked(dataset) == {"a", "b"}, "it is compared again, though its text is gone"

    loose = strict.model_copy(update={"near_duplicate_threshold": 1.0})
    mark_near_duplicates(dataset, "vlm", loose)
    assert rows_of(dataset) == before


def test_a_text_that_cannot_be_derived_again_stays_rejected_and_is_counted(
    dataset: Dataset,
) -> None:
    strict = settings_of(reject=(*DEFAULT_REJECTS, NEAR_DUPLICATE))
    write(dataset, "00000", [("a", "p1", BOAT), ("b", "p2", BOAT)], raw_text="something else")
    mark_near_duplicates(dataset, "vlm", strict)
    counts = mark_near_duplicates(dataset, "vlm", settings_of(near_duplicate_words=99))
    assert counts["lost"] == 2
    assert rows_of(dataset)["a"]["status"] == "rejected"


def test_hundreds_of_captions_of_one_mould_are_marked(dataset: Dataset) -> None:
    # One slot of fifty words differs: all fall into the same few buckets, which compare each with
    # COMPARED_IN_A_BUCKET others at most.
    mould = random_text(5, 50).split()
    captions = []
    for number in range(40 * COMPARED_IN_A_BUCKET):
        words = list(mould)
        words[number % 50] = f"slot{number}"
        captions.append((f"k{number:05d}", f"p{number}", " ".join(words)))
    captions.append(("other", "p", HILL))
    write(dataset, "00000", captions)
    mark_near_duplicates(dataset, "vlm", settings_of())
    found = marked(dataset)
    assert "other" not in found
    assert len(found) > 0.98 * (len(captions) - 1)


def test_a_source_without_captions_has_no_near_duplicates(dataset: Dataset) -> None:
    assert mark_near_duplicates(dataset, "nobody", settings_of())["compared"] == 0
