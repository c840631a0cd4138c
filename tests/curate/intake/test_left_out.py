"""Every picture of an input is a row, or a file that is counted and named."""

import io
import json
import tarfile
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.intake.inspection import inspect_input
from curate.intake.left_out import left_out_line
from curate.intake.lists.record import read_intake
from curate.store.accounting import accounting
from tests.curate.intake.test_local_pictures import (
    inputs,
    jpeg,
    members,
    samples,
    take_in,
    write_tar,
)

SVG, HEIC = b"<svg xmlns='x'/>", b"\0\0\0\x18ftypheic" + bytes(20)


def names_left_out(dataset) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    path = dataset.directory / "input" / "left_out.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        one = json.loads(line)
        found.setdefault(one["why"], []).append(one["name"])
    return found


def write_files(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


PICTURE = b"\xff\xd8\xff rows are planned without a look at it"


@pytest.mark.parametrize(
    ("listed", "keys", "further"),
    [
        # All pictures of one name up to its first dot, but each with a name of its own.
        ([f"shop.item_{n}.jpg" for n in range(5)], [f"shop.item_{n}" for n in range(5)], []),
        (["s.a.jpg", "s.a.txt", "s.b.jpg", "s.b.txt"], ["s.a", "s.b"], []),
        (["s.a.jpg", "s.b.jpg", "s.a.txt", "s.b.txt"], ["s.a", "s.b"], []),
        (["s.jpg", "s.txt", "s.b.jpg", "s.b.txt"], ["s", "s.b"], []),
        # One sample with further views of it.
        (["0.jpg", "0.seg.png", "0.txt"], ["0"], ["0.seg.png"]),
        (["0.image.jpg", "0.mask.png", "0.caption.txt"], ["0"], ["0.mask.png"]),
        (["0.rgb.png", "0.depth.png", "0.json"], ["0"], ["0.depth.png"]),
        (["0.svg", "0.png"], ["0"], ["0.svg"]),  # the one that is read
        # Names that no rule may lose.
        (["../0.jpg", "/abs/1.jpg", "a/0.jpg", "b/0.jpg"], ["../0", "/abs/1", "a/0", "b/0"], []),
        (["UP.JPG", "UP.TXT", "u.JPeG"], ["UP", "u"], []),
        (["x.jxl", "y.heic", "z.jp2", "i.ico"], ["x", "y", "z", "i"], []),
    ],
)
def test_the_pictures_of_a_tar_are_rows_or_further_views_by_name(tmp_path, listed, keys, further):
    path = write_tar(tmp_path / "a.tar", [(name, PICTURE) for name in listed])
    dataset = take_in(path, tmp_path / "out")
    found = inputs(dataset)
    assert [row["source_key"] for row in found] == keys
    assert len({row["key"] for row in found}) == len(keys)
    assert names_left_out(dataset).get("further_picture", []) == [f"a.tar#{n}" for n in further]


def test_texts_follow_their_pictures_where_names_hold_dots(tmp_path):
    listed = [
        (f"shop.{n}.{e}", c) for n in "ab" for e, c in (("jpg", jpeg(1)), ("txt", n.encode()))
    ]
    found = samples(take_in(write_tar(tmp_path / "a.tar", listed), tmp_path / "out"))
    assert [(s["alt_text"], s["status"]) for s in found] == [("a", "stored"), ("b", "stored")]


def test_members_that_are_no_rows_are_named_before_and_after_the_input_is_read(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        [
            *members(1),
            *((name, jpeg(1)) for name in (".hidden.jpg", "__MACOSX/._0.jpg", "bare")),
            *((name, b"x") for name in (".DS_Store", "n\0ul.jpg")),
        ],
    )
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("again.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "00000.jpg"
        tar.addfile(link, io.BytesIO())
    counts = {"hidden": 3, "other_file": 2, "link": 1}
    survey = inspect_input(path).survey()
    assert (survey.rows, dict(survey.left_out.counts)) == (1, counts)
    dataset = take_in(path, tmp_path / "out")
    assert accounting(dataset)["left_out"] == counts
    assert names_left_out(dataset)["hidden"] == [
        f"a.tar#{name}" for name in (".hidden.jpg", "__MACOSX/._0.jpg", ".DS_Store")
    ]
    intake = read_intake(dataset)
    line = left_out_line(intake.left_out, intake.left_out_names)
    assert "2 neither pictures nor texts by their names (a.tar#bare, a.tar#n)" in line


def test_a_folder_names_what_becomes_no_row_and_keeps_every_picture(tmp_path):
    folder = write_files(
        tmp_path / "in",
        {
            "A.JPG": jpeg(1),
            "A.TXT": b"upper",
            "b.jpg": jpeg(2),
            "b.jpg.txt": b"whole name",
            "c.svg": SVG,
            "d.heic": HEIC,
            "e.jxl": b"\xff\x0a",
            "f.ico": b"\0\0\1\0",
            "page.jpg": b"<html><svg/></html>",
            "empty.png": b"",
            "deep/er/g.gif": jpeg(3),
            ".h.jpg": jpeg(4),
            ".cache/i.jpg": jpeg(5),
            "__MACOSX/._A.jpg": b"x",
            ".DS_Store": b"x",
            "notes.md": b"x",
            "orphan.json": b"{}",
        },
    )
    survey = inspect_input(folder).survey()
    dataset = take_in(folder, tmp_path / "out")
    found = {s["source_file"]: s for s in inputs(dataset)}
    reasons = {
        row["source_file"]: sample["reason"]
        for row, sample in zip(inputs(dataset), samples(dataset), strict=True)
    }
    assert reasons == {
        **dict.fromkeys(("A.JPG", "b.jpg", "deep/er/g.gif")),
        **dict.fromkeys(("c.svg", "d.heic", "e.jxl", "f.ico"), "unsupported_format"),
        "page.jpg": "not_an_image",
        "empty.png": "empty_body",
    }
    assert (found["A.JPG"]["alt_text"], found["b.jpg"]["alt_text"]) == ("upper", "whole name")
    assert names_left_out(dataset) == {
        "hidden": [".DS_Store", ".h.jpg", ".cache/i.jpg", "__MACOSX/._A.jpg"],
        "other_file": ["notes.md", "orphan.json"],
    }
    assert (survey.rows, survey.exact) == (9, True)
    assert dict(survey.left_out.counts) == accounting(dataset)["left_out"]


def test_pictures_and_lists_beside_tars_are_named(tmp_path):
    write_tar(tmp_path / "in" / "a.tar", members(1))
    write_files(tmp_path / "in", {"loose.jpg": jpeg(1), "a_stats.json": b"{}", ".x": b""})
    dataset = take_in(tmp_path / "in", tmp_path / "out")
    assert names_left_out(dataset) == {"hidden": [".x"], "beside": ["loose.jpg"]}


def lines(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_two_lines_for_one_picture_are_two_captions_or_two_rows(tmp_path):
    folder = write_files(
        tmp_path / "in",
        {
            **{name: jpeg(n) for n, name in enumerate(("a.jpg", "b.jpg", "c.jpg", "bare.jpg"))},
            "metadata.jsonl": lines(
                {"file_name": "a.jpg", "text": "one"},
                {"file_name": "a.jpg", "text": ["two", "one"]},
                {"file_name": "b.jpg", "text": "one", "score": 1},
                {"file_name": "b.jpg", "text": "two", "score": 2},
                {"file_name": "gone.jpg", "text": "gone", "score": 3},
            ),
            "captions.jsonl": lines(
                {"image": "a.jpg", "text": "three"}, {"image": "c.jpg", "score": 4}
            ),
        },
    )
    survey = inspect_input(folder).survey()
    assert (survey.rows, survey.captions, survey.pictures) == (6, 5, 3)
    rows = inputs(take_in(folder, tmp_path / "out"))
    told = [(row["source_file"], row["alt_text"], row["alt_texts"], row["score"]) for row in rows]
    assert told == [
        ("a.jpg", "one", ["one", "two", "three"], None),
        ("b.jpg", "one", None, 1),
        ("b.jpg", "two", None, 2),
        ("bare.jpg", None, None, None),
        ("c.jpg", None, None, 4),
        ("gone.jpg", "gone", None, 3),
    ]
    assert rows[5]["failure"] == "no_picture"


def test_metadata_parquet_is_read_whatever_spelling_its_paths_have(tmp_path):
    folder = write_files(
        tmp_path / "in",
        {"a.jpg": jpeg(1), "sub/b.jpg": jpeg(2), "cafe\u0301.jpg": jpeg(3), "d.jpg": jpeg(4)},
    )
    table = pa.table(
        {
            "file_name": ["a.jpg", "sub\\b.jpg", "caf\u00e9.jpg", str(folder / "d.jpg")],
            "prompt": [["p", "q"], ["windows"], ["macOS"], ["absolute"]],
            "taken": [datetime(2020, 1, 1), None, None, None],
        }
    )
    pq.write_table(table, folder / "metadata.parquet")
    rows = inputs(take_in(folder, tmp_path / "out"))
    assert [row["alt_text"] for row in rows] == ["p", "macOS", "absolute", "windows"]
    assert rows[0]["alt_texts"] == ["p", "q"]
    assert rows[0]["taken"].startswith("2020-01-01")
    (folder / "metadata.parquet").write_bytes(b"PAR1 and no more")
    found = samples(take_in(folder, tmp_path / "damaged"))
    assert [s["reason"] for s in found] == ["damaged_source", None, None, None, None]


def test_metadata_that_lies_deeper_than_its_picture_says_so(tmp_path):
    deep = {"a.jpg": jpeg(1), "z/metadata.jsonl": lines({"file_name": "../a.jpg", "text": "x"})}
    found = samples(take_in(write_files(tmp_path / "in", deep), tmp_path / "out"))
    assert [s["reason"] for s in found] == [None, "no_picture"]
    assert found[1]["detail"].startswith("a.jpg is there, but its metadata must lie")
