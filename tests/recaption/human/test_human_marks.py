"""What people say of captions is stored as captions, which nothing that runs later has to know."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter

import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.export.run import export
from curate.export.settings import ExportSettings
from curate.store.captions import accepted_captions, read_made_from, text_mark
from curate.store.check import check
from curate.store.dataset import Dataset
from curate.store.holes import refuse_holes, repairing
from curate.store.lock import hold
from recaption.captioning.alt_texts import AltCaptionStage
from recaption.human import marks
from recaption.human.marks import Judged, all_marks, marks_of, marks_source, set_mark
from recaption.judging.caption_sets import CaptionSet
from recaption.judging.counts import count_set
from tests.curate.intake.test_local_pictures import jpeg, take_in, write_tar

SHARD = "00000"
MARKS = marks_source(None)
HOSTILE = "</script><b>\u202e a bird\x07 " + "x" * 9000


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("marks")
    listed = []
    for n in range(8):
        text = None if n == 7 else f"a red ball {n}"
        listed += [(f"{n}.jpg", jpeg(n)), (f"{n}.json", json.dumps({"caption": text}).encode())]
    Dataset.create(folder / "out", {}, {})
    dataset = take_in(write_tar(folder / "a.tar", listed), folder / "out")
    stage = AltCaptionStage()
    stage.open()
    stage.run(dataset, SHARD)
    dataset.write_selection("default", pq.read_table(dataset.table_path("samples", SHARD))
                            .column("key").combine_chunks(), {"selected": 8})  # fmt: skip
    return dataset


def alt(dataset: Dataset, place: int) -> Judged:
    return Judged(dataset.read_table("samples", SHARD)["key"][place].as_py(), "alt", "alt", 0)


def test_marks_are_captions_from_the_first_to_the_export(made, tmp_path):
    good, bad, edited, taken, empty = (alt(made, place) for place in (0, 1, 2, 3, 7))
    assert set_mark(made, SHARD, good, "good", seen=text_mark("a red ball 0")) is None
    set_mark(made, SHARD, bad, "good")
    assert set_mark(made, SHARD, bad, "bad") == {"mark": "good", "text": "a red ball 1"}
    set_mark(made, SHARD, edited, "edited", HOSTILE)
    set_mark(made, SHARD, taken, "bad")
    assert set_mark(made, SHARD, taken, None) == {"mark": "bad", "text": None}
    set_mark(made, SHARD, empty, "edited", " a ball that had no text ")

    told = {
        judged: (row["mark"], row["text"]) for judged, row in marks_of(made, SHARD, MARKS).items()
    }
    assert told == {
        good: ("good", "a red ball 0"),
        bad: ("bad", None),
        edited: ("edited", HOSTILE),
        empty: ("edited", "a ball that had no text"),
    }
    rows = {row["key"]: row for row in made.read_table("captions", SHARD, MARKS).to_pylist()}
    assert (rows[bad.key]["status"], rows[bad.key]["reason"]) == ("rejected", "bad")
    assert rows[bad.key]["raw_text"] == "a red ball 1"
    (about,) = read_made_from(rows[edited.key]["prompt_variables"])
    assert (about.source, about.text_sha256) == ("alt", text_mark("a red ball 2"))
    assert rows[good.key]["words"] == 4
    assert [row["mark"] for row in all_marks(made)].count("edited") == 2
    assert {row["who"] for row in all_marks(made)} == {None}

    # Unmarked pictures miss nothing, and whoever counts captions counts these.
    assert check(made, read_all=True).whole
    refuse_holes(made)
    counts = count_set(made, CaptionSet(MARKS, "human"))
    assert (counts.accepted, counts.rejected, counts.reasons) == (3, 1, {"bad": 1})
    assert accepted_captions(made, ["human"]).num_rows == 3

    alone = export(made, tmp_path / "alone", ExportSettings(captions={"human": 1.0}))
    assert (alone.kinds, alone.left_out) == ({"human": 3}, {"no_human_caption": 5})
    settings = ExportSettings(
        captions={"human": 0.5, "alt": 0.5}, missing_captions="fallback", format="parquet"
    )
    blend = export(made, tmp_path / "blend", settings)
    assert sum(blend.kinds.values()) == 8
    (shard,) = (tmp_path / "blend" / "data").glob("*.parquet")
    rows = pq.read_table(shard, columns=["key", "kind", "text"]).to_pylist()
    by_key = {row["key"]: (row["kind"], row["text"]) for row in rows}
    # Its alt text is no caption, so the human one stands for it whatever was drawn.
    assert by_key[empty.key] == ("human", "a ball that had no text")


def test_what_is_no_mark_is_refused(made):
    judged = alt(made, 4)
    with pytest.raises(ConfigError, match="letter or a digit"):
        set_mark(made, SHARD, judged, "edited", " \n!? ")
    with pytest.raises(ConfigError, match="half of a character"):
        set_mark(made, SHARD, judged, "edited", "a \ud800")
    with pytest.raises(ConfigError, match="no text here"):
        set_mark(made, SHARD, alt(made, 7), "good")
    with pytest.raises(ConfigError, match="wrote no short caption"):
        set_mark(made, SHARD, Judged(judged.key, "short", "alt", 0), "good")
    with pytest.raises(ConfigError, match="your own mark"):
        set_mark(made, SHARD, Judged(judged.key, "human", MARKS, 0), "good")
    with pytest.raises(DatasetError, match="written anew"):
        set_mark(made, SHARD, judged, "good", seen=text_mark("something else"))
    assert judged not in marks_of(made, SHARD, MARKS)


def test_two_captions_of_one_picture_are_marked_apart(made):
    first = alt(made, 5)
    set_mark(made, SHARD, first, "good")
    table = made.read_table("captions", SHARD, "alt")
    rows = [row | {"kind": "short"} for row in table.to_pylist()]
    made.write_table("captions", type(table).from_pylist(rows, table.schema), SHARD, "other")
    second = Judged(first.key, "short", "other", 0)
    set_mark(made, SHARD, second, "edited", "another")
    set_mark(made, SHARD, first, "edited", "one")
    found = made.read_table("captions", SHARD, MARKS).to_pylist()
    own = [(row["sample_index"], row["text"]) for row in found if row["key"] == first.key]
    assert own == [(0, "one"), (1, "another")]
    set_mark(made, SHARD, first, None)
    shutil.rmtree(made.table_directory("captions", "other"))
    with pytest.raises(ConfigError, match="no captions by 'other'"):
        set_mark(made, SHARD, second, "good")
    # What became of its caption does not hold a mark fast.
    assert set_mark(made, SHARD, second, None)["text"] == "another"
    assert check(made).whole


def test_a_second_page_of_the_same_person_waits_its_turn(made, monkeypatch):
    holds, ends = threading.Event(), threading.Event()

    def other() -> None:
        with hold(made.directory, [f"captions/{MARKS}"]):
            holds.set()
            ends.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    holds.wait(10)
    monkeypatch.setattr(marks, "WAIT", 0.05)
    with pytest.raises(DatasetError, match=f"captions/{MARKS}.* is being written by another run"):
        set_mark(made, SHARD, alt(made, 4), "good")
    monkeypatch.setattr(marks, "WAIT", 10)
    threading.Timer(0.1, ends.set).start()
    assert set_mark(made, SHARD, alt(made, 4), "good") is None
    thread.join()
    set_mark(made, SHARD, alt(made, 4), None)


MARKING = """
import sys
from curate.store.dataset import Dataset
from recaption.human.marks import Judged, set_mark
dataset = Dataset(sys.argv[1])
for turn in range(100000):
    for key in sys.argv[2:]:
        set_mark(dataset, "00000", Judged(key, "alt", "alt", 0), "edited", f"turn {turn}")
        print(key, turn, flush=True)
"""


def test_a_process_that_is_killed_loses_no_mark_and_leaves_no_half_of_one(made):
    keys = [alt(made, place).key for place in range(6)]
    command = [sys.executable, "-c", MARKING, str(made.directory), *keys]
    last = Counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(40):
            key, turn = process.stdout.readline().split()
            last[key] = int(turn)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout:
            last[line.split()[0]] = int(line.split()[1])
    found = {judged.key: row["text"] for judged, row in marks_of(made, SHARD, MARKS).items()}
    # The mark that was under way may have been stored before its answer was read.
    assert all(int(found[key].split()[1]) - turn in (0, 1) for key, turn in last.items())
    assert check(made, read_all=True).whole
    assert set_mark(made, SHARD, alt(made, 0), None)["mark"] == "edited"


def test_people_mark_apart(made):
    judged = alt(made, 6)
    set_mark(made, SHARD, judged, "bad", who="ada")
    assert set_mark(made, SHARD, judged, "good", who="bob") is None
    told = {row["who"]: row["mark"] for row in all_marks(made) if row["key"] == judged.key}
    assert told == {"ada": "bad", "bob": "good"}
    with pytest.raises(ConfigError, match="Several captioners wrote human captions"):
        accepted_captions(made, ["human"])
    chosen = accepted_captions(made, ["human"], {"human": "human-bob"})
    assert chosen["text"].to_pylist() == ["a red ball 6"]
    set_mark(made, SHARD, judged, "edited", "a ball of ada's", who="ada")
    set_mark(made, SHARD, alt(made, 3), "bad", who="ada")
    set_mark(made, SHARD, alt(made, 3), "good", who="bob")
    in_order = accepted_captions(made, ["human"], {"human": "human-ada+human-bob"}).to_pylist()
    # Of whom did both see it ada's word counts; what she called bad is what bob called good.
    assert {row["text"]: row["source"] for row in in_order} == {
        "a ball of ada's": "human-ada",
        "a red ball 3": "human-bob",
    }
    with pytest.raises(ConfigError, match="'human-eve' wrote no human captions"):
        accepted_captions(made, ["human"], {"human": "human-ada+human-eve"})
    with pytest.raises(ConfigError, match="cannot name who"):
        set_mark(made, SHARD, judged, "good", who="../x")
    with pytest.raises(ConfigError, match="no captions by"):
        set_mark(made, SHARD, Judged(judged.key, "alt", "../alt", 0), "good")


def test_marks_that_are_lost_are_missed(made):
    path = made.table_path("captions", SHARD, MARKS)
    made.table_path("captions", "00001", MARKS).write_bytes(path.read_bytes())
    path.unlink()
    (hole,) = (hole for hole in check(made).holes if hole.path == path)
    assert "backup" in repairing(made, hole)
