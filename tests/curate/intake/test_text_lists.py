"""Lists in text: exact texts, and a broken line costs one row."""

import gzip
import json
from pathlib import Path

import pytest

from curate.base.reasons import Failure, Reason
from curate.intake.locations import Store
from curate.intake.text_lists import read_text_list


def rows(path: Path, kind: str) -> list:
    """Fields of each row, or the reason's name."""
    found = read_text_list(Store("", str(path.parent)), path.name, kind)
    return [f.reason.value if isinstance(f, Failure) else dict(f) for _, f in found]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


BAD = Reason.UNREADABLE_ROW.value


def test_csv_texts_keep_quotes_commas_line_ends_and_spaces(tmp_path):
    content = 'url,text\na," he said ""hi"",\r\nand left "\nb,5" pipe\nc,""\nd,\n'
    assert rows(write(tmp_path, "l.csv", content), "csv") == [
        {"url": "a", "text": ' he said "hi",\r\nand left '},
        {"url": "b", "text": '5" pipe'},
        {"url": "c", "text": ""},
        {"url": "d", "text": None},
    ]


def test_a_csv_line_of_another_width_is_one_broken_row(tmp_path):
    content = "url,text\na,b\nc\nd,e,f\ng,h\n"
    assert rows(write(tmp_path, "l.csv", content), "csv") == [
        {"url": "a", "text": "b"},
        BAD,
        BAD,
        {"url": "g", "text": "h"},
    ]


def test_a_quote_that_is_never_closed_costs_its_own_line_only(tmp_path):
    lines = ["url,text", 'a,"open', *[f"b{n},text {n}" for n in range(500)], 'c,"closed"']
    found = rows(write(tmp_path, "l.csv", "\n".join(lines)), "csv")
    assert found[0] == BAD
    assert found[1:501] == [{"url": f"b{n}", "text": f"text {n}"} for n in range(500)]
    assert found[501:] == [{"url": "c", "text": "closed"}]


def test_a_tsv_that_does_not_quote_keeps_its_quotes(tmp_path):
    content = 'url\ttext\na\t"Sea" by night\nb\t"open\nc\t"quoted"\n'
    assert rows(write(tmp_path, "l.tsv", content), "tsv") == [
        {"url": "a", "text": '"Sea" by night'},
        {"url": "b", "text": '"open'},
        {"url": "c", "text": "quoted"},
    ]


def test_bytes_that_are_no_utf8_are_one_broken_row(tmp_path):
    content = b"url,text\na,caf\xe9\nb,caf\xc3\xa9\n"
    assert rows(write(tmp_path, "l.csv", content), "csv") == [BAD, {"url": "b", "text": "café"}]


def test_weird_unicode_is_kept_letter_for_letter(tmp_path):
    text = "e\u0301 \u00e9 \u200d\u202e\ufeff \U0001f469\u200d\U0001f52c \u2028x\x85y\x0bz"
    path = write(tmp_path, "l.tsv", f"url\ttext\na\t{text}\n")
    assert rows(path, "tsv") == [{"url": "a", "text": text}]
    path = write(tmp_path, "l.jsonl", json.dumps({"url": "a", "text": text}, ensure_ascii=False))
    assert rows(path, "jsonl") == [{"url": "a", "text": text}]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert rows(write(tmp_path, "l.csv", b"\xef\xbb\xbfurl,text\na,b\n"), "csv")[0]["url"] == "a"


def test_json_lines_that_are_no_objects_are_broken_rows(tmp_path):
    content = '{"url": "a"}\nnonsense\n[1]\n\n{"url": "b"}\n'
    found = rows(write(tmp_path, "l.jsonl", content), "jsonl")
    assert found == [{"url": "a"}, BAD, BAD, {"url": "b"}]


@pytest.mark.parametrize("size", [3, 5000])
def test_a_json_array_is_read_object_by_object(tmp_path, size):
    objects = [{"url": f"http://a/{n}", "text": "x" * (n % 700)} for n in range(size)]
    assert rows(write(tmp_path, "l.json", json.dumps(objects, indent=1)), "json") == objects


def test_a_json_array_that_is_cut_keeps_what_came_before(tmp_path):
    whole = json.dumps([{"url": f"u{n}"} for n in range(100)])
    found = rows(write(tmp_path, "l.json", whole[:-40]), "json")
    assert found[:-1] == [{"url": f"u{n}"} for n in range(len(found) - 1)]
    assert len(found) > 90
    assert found[-1] == Reason.DAMAGED_SOURCE.value


def test_plain_text_is_a_url_a_line(tmp_path):
    found = rows(write(tmp_path, "l.txt", "http://a/1.jpg\r\n\n  http://a/2.jpg"), "text")
    assert found == [{"url": "http://a/1.jpg"}, {"url": "http://a/2.jpg"}]


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_truncated_gzip_keeps_what_was_readable_and_counts_the_damage(tmp_path, share):
    lines = [f"http://a/{n},text number {n * 7919}" for n in range(20_000)]
    packed = gzip.compress("\n".join(["url,text", *lines]).encode())
    found = rows(write(tmp_path, "l.csv.gz", packed[: int(len(packed) * share)]), "csv")
    assert found[-1] == Reason.DAMAGED_SOURCE.value
    assert len(found) > 20_000 * share * 0.9
    for number, row in enumerate(found[:-1]):
        assert f"{row['url']},{row['text']}" == lines[number]
