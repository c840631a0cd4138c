"""Pairs are read from every form, and whatever cannot be learnt from is counted with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from caption_dataset import make_dataset, stored_keys
from tiny_captioners import picture

from curate.base.errors import ConfigError
from curate.store.contract import CAPTIONS
from recaption.fit.pairs import Pairs, read_pairs


def told(pairs: Pairs) -> list[tuple[str, str, str]]:
    return [(pairs.names[row.picture], row.kind, row.caption) for row in pairs.rows]


def test_wrong_rows_are_refused_with_name_and_reason(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture(0))
    (tmp_path / "bad.png").write_bytes(picture(1)[:60])
    rows = [
        {"image": "good.png", "kind": "short", "caption": " a\n picture "},
        {"image": "good.png", "kind": "haiku", "caption": "x"},
        {"image": "good.png", "kind": "short", "caption": "  "},
        {"image": "bad.png", "kind": "short", "caption": "x"},
        {"image": "gone.png", "short": "x", "descriptive": "y"},
        {"image": "good.png"},
        ["no", "row"],
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    pairs = read_pairs(path, ("short", "descriptive"))
    assert told(pairs) == [("good.png", "short", "a picture")]
    assert sorted(pairs.refused) == [
        ("bad.png", "broken_picture"),
        ("gone.png", "missing_picture"),
        ("gone.png", "missing_picture"),
        ("good.png", "no_caption"),
        ("good.png", "no_caption"),
        ("good.png", "other_kind"),
        ("row 6", "unreadable_row"),
        ("row 7", "unreadable_row"),
    ]
    with pytest.raises(ConfigError, match="no pair of kind haiku2"):
        read_pairs(path, ("haiku2",))
    with pytest.raises(ConfigError, match="do not exist"):
        read_pairs(tmp_path / "nowhere", ("short",))


def test_parquet_holds_pictures_as_bytes_or_as_the_datasets_library_stores_them(
    tmp_path: Path,
) -> None:
    plain = pa.table({"image": [picture(0)], "kind": ["short"], "caption": ["plain"]})
    pq.write_table(plain, tmp_path / "a.parquet")
    stored = {"image": [{"bytes": picture(1), "path": None}], "text": ["one kind is asked for"]}
    pq.write_table(pa.table(stored), tmp_path / "b.parquet")
    assert told(read_pairs(tmp_path / "a.parquet", ("short",))) == [("row 0", "short", "plain")]
    assert told(read_pairs(tmp_path / "b.parquet", ("short",))) == [
        ("row 0", "short", "one kind is asked for")
    ]


def test_a_folder_has_texts_beside_its_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(picture(ord(name)))
    (tmp_path / "a.short.txt").write_text("short of a")
    (tmp_path / "a.descriptive.txt").write_text("descriptive of a")
    pairs = read_pairs(tmp_path, ("short", "descriptive"))
    assert told(pairs) == [
        ("a.png", "short", "short of a"),
        ("a.png", "descriptive", "descriptive of a"),
    ]
    assert pairs.refused == [("b.png", "no_caption")]
    (tmp_path / "b.txt").write_text("any of b")
    assert told(read_pairs(tmp_path, ("short",)))[1] == ("b.png", "short", "any of b")


def test_a_dataset_gives_accepted_captions_and_alt_texts(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", broken=(1,))
    keys = stored_keys(dataset)
    rows = [
        {
            "key": key,
            "kind": "short",
            "sample_index": 0,
            "text": f"caption {n}" if n != 2 else None,
            "status": "ok" if n != 2 else "rejected",
        }
        for n, key in enumerate(keys[:4])
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema([f.with_nullable(True) for f in CAPTIONS]))
    dataset.write_table("captions", table, dataset.shards()[0], "writer")
    pairs = read_pairs(dataset.directory, ("short",))
    assert told(pairs) == [(keys[0], "short", "caption 0"), (keys[3], "short", "caption 3")]
    assert pairs.refused == [(keys[1], "broken_picture")]
    noisy = read_pairs(dataset.directory, ("alt",))
    assert ("alt", "alt text of row 0") in [row[1:] for row in told(noisy)]
    assert noisy.reasons() == {"broken_picture": 1, "no_caption": 2}


def test_the_picture_decides_what_is_held_out(tmp_path: Path) -> None:
    few, many = Pairs(), Pairs()
    for i in range(200):
        both = [("short", f"s{i}"), ("descriptive", f"d{i}")]
        many.add(f"p{i}", picture(i), both)
        if i < 60:
            few.add(f"p{i}", picture(i), both[:1])
    held = {(many.rows[i].picture, many.rows[i].kind) for i in many.held_out(0.1).nonzero()[0]}
    pictures = {place for place, _ in held}
    assert held == {(place, kind) for place in pictures for kind in ("short", "descriptive")}
    assert 8 <= len(pictures) <= 36, "about a tenth"
    again = {few.rows[i].picture for i in few.held_out(0.1).nonzero()[0]}
    assert again == {place for place in pictures if place < 60}
    assert Pairs().held_out(0.5).shape == (0,)
    lonely = Pairs()
    lonely.add("one", picture(0), [("short", "x")])
    assert lonely.held_out(1e-9).tolist() == [True]
