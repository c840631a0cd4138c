"""Texts in files, taken in as captions of kind `human`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from caption_dataset import make_dataset, stored_keys

from curate.base.errors import ConfigError
from curate.store.captions import accepted_captions
from curate.store.contract import SAMPLES
from curate.store.dataset import Dataset
from curate.store.holes import find_holes
from recaption.human.settings import ImportSettings
from recaption.human.take_in import import_captions


def from_folder(directory: Path) -> Dataset:
    """A dataset of URLs that a folder of pictures has joined, and two pictures of a tar."""
    files = ["a/one.jpg", "a/two.jpg", "b/two.jpg", "b/été.png", "b/lost.jpg", "a/one.2.jpg"]
    dataset = Dataset.create(directory, {"list": "test"}, {})
    rows = [
        {"key": f"{n:032x}", "shard": "00001", "row": n, "status": "stored", "url": None}
        for n in range(len(files) + 2)
    ]
    rows[4] |= {"status": "failed", "reason": "broken_image"}
    dataset.write_table("samples", pa.Table.from_pylist(rows, schema=SAMPLES), "00001")
    names = [os.path.splitext(file)[0].rpartition("/")[2] for file in files]
    files, names = [*files, "t.tar", "t.tar"], [*names, "x/seven", "x/eight"]
    given = pa.table({"key": [r["key"] for r in rows], "source_file": files, "source_key": names})
    dataset.input_path("00000").parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"key": ["f" * 32], "url": ["u"]}), dataset.input_path("00000"))
    pq.write_table(given, dataset.input_path("00001"))
    return dataset


def texts_of(dataset: Dataset) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in accepted_captions(dataset, ["human"]).to_pylist():
        found.setdefault(row["key"], []).append(row["text"])
    return found


def test_text_files_find_their_pictures_and_the_others_are_listed(tmp_path: Path) -> None:
    dataset = from_folder(tmp_path / "data")
    one, two, other_two, summer, _, one_2, seven, _ = (f"{n:032x}" for n in range(8))
    folder = tmp_path / "Texts of Anna"
    for name, content in {
        "a/one.txt": b"\xef\xbb\xbfA c\x00at.\r\nIt sleeps.\r\n",  # mark, NUL, Windows
        "a/two.jpg.txt": "Ein Hund läuft.".encode("utf-16"),
        f"{other_two}.txt": b"known by its key",
        "e\u0301te\u0301.caption": b"no folder, and accents apart",
        "two.txt": b"whose?",
        "b/lost.txt": b"of a picture that failed",
        "b/nobody.txt": b"of nothing",
        "a/one.2.txt": b"not of one.jpg",
        "a/one.3.txt": b"nor this",
        "t.txt": b"the tar's name is no picture's",
        "seven.txt": b"in a tar",
        "a/empty.txt": b" \r\n",
        "a/old.txt": "café".encode("cp1252"),
        "a/one.jpg": b"a picture is no text",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "a/link.txt").symlink_to(tmp_path / "nowhere")

    rehearsed = import_captions(dataset.directory, str(folder), ImportSettings(), dry_run=True)
    assert "A cat. It sleeps." in rehearsed.text()
    assert dataset.caption_sources() == []

    done = import_captions(dataset.directory, str(folder), ImportSettings())
    assert done.source == "imported-texts-of-anna"
    assert texts_of(dataset) == {
        one: ["A cat.\nIt sleeps."],
        two: ["Ein Hund läuft."],
        other_two: ["known by its key"],
        summer: ["no folder, and accents apart"],
        one_2: ["not of one.jpg"],
        seven: ["in a tar"],
    }
    assert done.left_out == {
        "empty": 1,
        "no_such_picture": 3,
        "picture_not_stored": 1,
        "several_pictures": 1,
        "unreadable": 2,
    }
    listed = [json.loads(line) for line in done.listed.read_text().splitlines()]
    told = {one["place"]: (one["reason"], one["detail"]) for one in listed}
    assert told["a/old.txt"][1] == "byte 4 is no UTF-8; say --encoding, such as cp1252"
    assert told["a/link.txt"][1] == "it cannot be read (No such file or directory)"
    assert told["two.txt"] == ("several_pictures", "2 pictures have this name")
    assert told["b/lost.txt"] == ("picture_not_stored", "broken_image")
    (row, *_) = dataset.read_table("captions", "00001", done.source).to_pylist()
    assert (row["engine"], row["model"], row["words"]) == ("human", "a/one.txt", 4)

    # Again: nothing to do. Changed: the captions are what the files say now.
    again = import_captions(dataset.directory, str(folder), ImportSettings())
    assert (again.written, again.kept) == (0, 1)
    (folder / "a/one.txt").unlink()
    (folder / "a/two.jpg.txt").write_bytes(b"A dog runs.")
    import_captions(dataset.directory, str(folder), ImportSettings())
    assert texts_of(dataset)[two] == ["A dog runs."]
    assert one not in texts_of(dataset)
    assert not [hole for hole in find_holes(dataset) if hole.table.startswith("captions")]
    other = tmp_path / "texts-of-anna"
    other.mkdir()
    (other / "one.txt").write_text("x")
    with pytest.raises(ConfigError, match="choose another --name"):
        import_captions(dataset.directory, str(other), ImportSettings())


def test_lists_name_pictures_by_key_file_or_url(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", shards=2, per_shard=3)
    keys = stored_keys(dataset)
    rows = [
        {"key": keys[0], "alt_text": "of the web", "caption": ["first", "second", "first", " "]},
        {"url": "http://pictures.test/1.png", "caption": "by its address"},
        {"url": "http://pictures.test/1.png", "caption": "said by another"},
        {"key": "f" * 32, "url": "http://pictures.test/5.png", "caption": "an unknown key"},
        {"url": "http://pictures.test/2.png", "caption": None},
        {"caption": "of what?"},
        {"key": keys[1], "caption": ["half of \ud800", "whole"]},
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join([*map(json.dumps, rows), "{no json"]))
    done = import_captions(dataset.directory, str(path), ImportSettings(name="me"))
    by_url = {
        row["url"]: row["key"]
        for shard in dataset.shards()
        for row in dataset.read_table("samples", shard).to_pylist()
    }
    assert texts_of(dataset) == {
        keys[0]: ["first", "second"],
        by_url["http://pictures.test/1.png"]: ["by its address", "said by another"],
        by_url["http://pictures.test/5.png"]: ["an unknown key"],
    }
    assert done.left_out == {
        "empty": 1,
        "names_no_picture": 1,
        "unreadable": 1,
        "unreadable_row": 1,
    }
    assert (done.captions, done.pictures, done.stored) == (5, 3, 6)
    # The same rows from Parquet and CSV.
    pq.write_table(pa.Table.from_pylist(rows[1:4]), tmp_path / "captions.parquet")
    (tmp_path / "captions.csv").write_text(f"key;text\n{keys[0]};first\n{keys[2]};third\n")
    settings = ImportSettings(name="again")
    assert (
        import_captions(dataset.directory, f"{tmp_path}/captions.parquet", settings).captions == 3
    )
    settings = ImportSettings(name="csv")
    assert import_captions(dataset.directory, f"{tmp_path}/captions.csv", settings).captions == 2


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.txt", "a text", "must be a folder of .txt files, or a list"),
        ("x.jsonl", '{"key": "none of ours", "text": "hello"}', "No text is of a picture"),
        ("x.jsonl", '{"words": "hello"}', "its columns are words; it needs key, file_name or url"),
    ],
)
def test_what_fits_nothing_is_said_in_one_sentence(
    tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    dataset = make_dataset(tmp_path / "data", shards=1, per_shard=1)
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=sentence):
        import_captions(dataset.directory, str(tmp_path / name), ImportSettings())
