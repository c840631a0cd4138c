"""Alt texts that come as lists are captions like any others, all the way to the export."""

import json
import tarfile
from collections import Counter

import pytest

from curate.export.run import export
from curate.export.settings import ExportSettings
from curate.intake.inspection import inspect_input
from curate.store.captions import accepted_captions, several_alt_texts
from curate.store.contract import STORED
from curate.store.dataset import Dataset
from recaption.captioning.alt_texts import AltCaptionStage
from recaption.fit.pairs import read_pairs
from recaption.judging.caption_sets import CaptionSet, sample_captions
from tests.curate.intake.test_local_pictures import jpeg, take_in, write_tar

LISTS = [["a red ball", "a ball", "!?"], ["one text"], None, []]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """40 pictures, every fourth with three texts (the last without a letter), one, none, none."""
    folder = tmp_path_factory.mktemp("lists")
    listed = []
    for n in range(40):
        texts = LISTS[n % 4] and [f"{text} {n}" for text in LISTS[n % 4][:2]] + LISTS[n % 4][2:]
        listed += [(f"{n}.jpg", jpeg(n)), (f"{n}.json", json.dumps({"caption": texts}).encode())]
    Dataset.create(folder / "out", {}, {})
    made = take_in(write_tar(folder / "a.tar", listed), folder / "out")
    stage = AltCaptionStage()
    stage.open()
    counts = stage.run(made, "00000")
    assert counts == {"ok": 30, "failed": 30}
    return made


def test_every_text_of_a_list_is_an_alt_caption_in_its_order(dataset):
    samples = dataset.read_table("samples", "00000").to_pylist()
    captions = dataset.read_table("captions", "00000", "alt").to_pylist()
    by_key = {s["key"]: s["alt_text"] for s in samples if s["status"] == STORED}
    assert all(by_key[c["key"]] == c["raw_text"] for c in captions if c["sample_index"] == 0)
    first = samples[0]["key"]
    told = [(c["sample_index"], c["raw_text"], c["reason"]) for c in captions if c["key"] == first]
    assert told == [(0, "a red ball 0", None), (1, "a ball 0", None), (2, "!?", "empty")]
    assert accepted_captions(dataset, ["alt"]).num_rows == 30


def test_the_tar_holds_the_list_and_can_be_taken_in_again(dataset, tmp_path):
    shard = dataset.shard_path("00000")
    with tarfile.open(shard) as tar:
        fields = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
    assert fields[0]["alt_texts"] == ["a red ball 0", "a ball 0", "!?"]
    assert [len(f["alt_texts"]) for f in fields[:4]] == [3, 1, 0, 0]
    again = take_in(shard, tmp_path / "again")
    assert sorted(several_alt_texts(again, "00000").values()) == sorted(
        several_alt_texts(dataset, "00000").values()
    )
    assert inspect_input(shard).survey().captions == 40


def test_an_export_draws_among_all_alt_texts(dataset, tmp_path):
    keys = accepted_captions(dataset, ["alt"]).column("key").combine_chunks().unique()
    dataset.write_selection("all", keys, {})
    export(dataset, tmp_path / "out", ExportSettings(selection="all", captions={"alt": 1.0}))
    drawn = Counter()
    for path in sorted((tmp_path / "out" / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            sidecars = [json.load(tar.extractfile(m)) for m in tar if "json" in m.name]
        drawn.update(sidecar["sample_index"] for sidecar in sidecars)
    assert sum(drawn.values()) == 20
    assert set(drawn) == {0, 1}


def test_a_caption_set_holds_each_picture_once(dataset):
    found = sample_captions(dataset, [CaptionSet("alt", "alt")], 100)
    assert len(found.keys) == len(set(found.keys)) == found.candidates == 20


def test_a_captioner_is_fitted_to_every_alt_text(dataset):
    assert read_pairs(dataset.directory, ["alt"]).counts() == {"alt": 40}


def test_pairs_of_a_file_may_hold_lists_too(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    line = {"image": "a.jpg", "caption": ["one", "two"]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(line))
    pairs = read_pairs(tmp_path / "pairs.jsonl", ["short"])
    assert [row.caption for row in pairs.rows] == ["one", "two"]


def test_a_dataset_from_before_lists_has_one_alt_text_a_picture(tmp_path):
    old = Dataset(tmp_path)
    assert several_alt_texts(old, "00000") == {}
