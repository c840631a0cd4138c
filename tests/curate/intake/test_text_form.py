"""What a list in text is written in is told surely, or one sentence says what to do."""

import gzip
import json
from pathlib import Path

import pytest

from curate.base.errors import ConfigError
from curate.base.reasons import Failure
from curate.intake import text_form
from curate.intake.inspection import inspect_input
from curate.intake.locations import Store
from curate.intake.source import Source
from curate.intake.text_lists import read_text_list

ROWS = [("http://a/1", "café \u201cau lait\u201d"), ("http://a/2", "Ærø, or not")]
CSV = "url,text\n" + "".join(f'{url},"{text}"\n' for url, text in ROWS)


def found(source: Source) -> list[tuple[str | None, str | None]]:
    return [(record.url, record.text) for record in source.records()]


def written(folder: Path, content: bytes | str, name: str = "l.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path, says: str, **options: object) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        inspect_input(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-8"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_mark_at_the_start_tells_the_encoding(tmp_path, encoding, pack):
    name = "l.csv.gz" if pack is gzip.compress else "l.csv"
    assert found(inspect_input(written(tmp_path, pack(CSV.encode(encoding)), name))) == ROWS
    array = json.dumps([{"url": u, "text": t} for u, t in ROWS], ensure_ascii=False, indent=1)
    path = written(tmp_path, array.encode(encoding), "l.json")
    assert found(inspect_input(path)) == ROWS


@pytest.mark.parametrize(
    ("encoding", "says"),
    [
        ("cp1252", "byte 16 of line 2 is 0xE9, which looks like CP1252 or Latin-1 .'é'.; say "
         "--encoding cp1252, or --encoding utf-8"),
        ("utf-16-le", "a zero in about every other byte, as UTF-16 has; say --encoding utf-16-le"),
        ("utf-16-be", "say --encoding utf-16-be"),
    ],
)  # fmt: skip
def test_another_encoding_is_refused_with_what_was_seen_and_read_where_it_is_named(
    tmp_path, encoding, says
):
    path = written(tmp_path, CSV.encode(encoding))
    refused(path, says)
    assert found(inspect_input(path, encoding=encoding)) == ROWS


def test_an_encoding_of_the_east_is_not_taken_for_a_western_one(tmp_path):
    text = "url,text\nhttp://a/1,一只红色的狗在草地上奔跑，旁边有一棵大树\n"
    path = written(tmp_path, text.encode("gb18030"))
    refused(path, "looks like another encoding, such as gb18030")
    assert found(inspect_input(path, encoding="gb18030"))[0][1] == text[20:-1]


@pytest.mark.parametrize(
    ("encoding", "text"), [("shift_jis", "日本語の犬"), ("koi8-r", "красная собака")]
)
def test_long_urls_do_not_make_a_text_western(tmp_path, encoding, text):
    path = written(tmp_path, f"url,text\nhttp://a/{'path/' * 40},{text}\n".encode(encoding))
    refused(path, "another encoding, such as .* --encoding NAME")


def test_what_is_no_letter_of_the_named_encoding_is_a_broken_row(tmp_path):
    path = written(tmp_path, b"url,text\na,\x81\nb,\xe9\n")
    rows = list(read_text_list(Store("", str(tmp_path)), path.name, "csv", "cp1252"))
    assert isinstance(rows[0][1], Failure)
    assert rows[0][1].detail == r"bytes that are no UTF-8: a,\x81"
    assert rows[1][1] == {"url": "b", "text": "é"}


def test_a_few_bad_bytes_among_texts_in_utf8_are_broken_rows(tmp_path):
    path = written(tmp_path, b"url,text\na,caf\xe9\n" + "b,café\n".encode())
    records = list(inspect_input(path).records())
    assert [record.failure is None for record in records] == [False, True]
    assert len(list(inspect_input(written(tmp_path, b"url,text\na,caf\xe9\nb,c\n"),
                                  encoding="utf-8").records())) == 2  # fmt: skip


@pytest.mark.parametrize("content", [b"PK\x03\x04..", b"\x28\xb5\x2f\xfd..", bytes(range(256)) * 9])
def test_what_is_no_text_is_refused(tmp_path, content):
    refused(written(tmp_path, content), "no text; unpack it, or save it as CSV")


def test_a_block_of_zeros_is_a_broken_row(tmp_path):
    path = written(tmp_path, CSV.encode() + bytes(5000))
    failed = [record.failure is not None for record in inspect_input(path).records()]
    assert failed == [False, False, True]


def test_an_unknown_encoding_and_one_for_no_text_are_refused(tmp_path):
    refused(written(tmp_path, CSV), "no text encoding 'martian'", encoding="martian")
    refused(written(tmp_path, CSV), "no text encoding 'base64'", encoding="base64")
    path = written(tmp_path, b"", "l.parquet")
    refused(path, "--encoding is for lists in text", encoding="cp1252")


@pytest.mark.parametrize("mark", [";", "|", "\t", ","])
@pytest.mark.parametrize("name", ["l.csv", "l.tsv"])
def test_the_separator_is_the_one_with_which_the_header_names_the_urls(tmp_path, mark, name):
    lines = [("id", "url", "text"), ("007", "http://a/1", '"a; b, c | d\te"'), ("8", "", "x")]
    path = written(tmp_path, "\r\n".join(map(mark.join, lines)), name)
    assert found(inspect_input(path)) == [("http://a/1", "a; b, c | d\te"), (None, "x")]
    said = written(tmp_path, f"sep={mark}\r\n" + path.read_text(), name)
    assert found(inspect_input(said)) == [("http://a/1", "a; b, c | d\te"), (None, "x")]


def test_lines_that_end_with_a_carriage_return_alone_are_lines(tmp_path):
    path = written(tmp_path, CSV.replace("\n", "\r"))
    assert found(inspect_input(path)) == ROWS


LINES = {
    "csv": ("{},t", ["url,text"]),
    "tsv": ("{}\tt", ["url\ttext"]),
    "jsonl": ('{{"url": "{}"}}', []),
    "text": ("{}", []),
}


@pytest.mark.parametrize("kind", LINES)
def test_a_line_of_absurd_length_is_one_broken_row(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(text_form, "LONGEST_LINE", 1000)
    monkeypatch.setattr(text_form, "_CHUNK", 64)
    form, head = LINES[kind]
    urls = ["a", "x" * 5000, "b", "c" * 5000]
    written(tmp_path, "\n".join([*head, *map(form.format, urls)]), "list")
    rows = [row for _, row in read_text_list(Store("", str(tmp_path)), "list", kind)]
    assert [isinstance(row, Failure) or row["url"] for row in rows] == ["a", True, "b", True]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"url": {"0": "a"}, "text": {"0": "b"}}, "holds columns or numbered rows, as pandas'"),
        ({"0": {"url": "a", "text": "b"}}, "write it with df.to_json.PATH, orient=.records"),
        ({"columns": ["url", "text"], "index": [0], "data": [["a", "b"]]}, "holds columns"),
        ({"schema": {"fields": []}, "data": [{"url": "a", "text": "b"}]}, "holds columns"),
        ({"url": ["a", "b"], "text": ["c", "d"]}, "holds columns"),
        ({"info": {"year": 1}, "images": [{"url": "a"}]}, "its rows under the key 'images'; give"),
        ([["a", "b"]], "no rows that can be read as JSON: no object"),
        ("a", "must hold a JSON array"),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_json_of_another_shape_is_refused_with_what_to_do(tmp_path, document, says, indent):
    refused(written(tmp_path, json.dumps(document, indent=indent), "l.json"), says)


def test_objects_of_many_lines_one_behind_the_other_are_rows(tmp_path):
    rows = [{"url": u, "text": t} for u, t in ROWS]
    path = written(tmp_path, "\n".join(json.dumps(row, indent=2) for row in rows), "l.json")
    assert found(inspect_input(path)) == ROWS
    assert found(inspect_input(written(tmp_path, json.dumps(rows[0]), "l.json"))) == ROWS[:1]


def test_repeated_and_empty_names_of_a_header_each_get_a_name(tmp_path):
    path = written(tmp_path, "url,text,a,a_4,,a,,a_6\n1,2,3,4,5,6,7,8\n")
    source = inspect_input(path)
    assert len(source.columns) == 6
    (record,) = source.records()
    assert list(record.fields.values()) == ["3", "4", "5", "6", "7", "8"]
