import pytest

from curate.scoring.scorers.sentences import fitting, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cat sleeps. A dog barks!", ["A cat sleeps.", "A dog barks!"]),
        ("one sentence without an end", ["one sentence without an end"]),
        ("A 2.5 m wall. Is it red?", ["A 2.5 m wall.", "Is it red?"]),
        ("A cat, e.g. a tabby. It sleeps.", ["A cat, e.g. a tabby.", "It sleeps."]),
        ("J. S. Bach at the organ. He plays.", ["J. S. Bach at the organ.", "He plays."]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("title\n\nA red house.", ["title", "A red house."]),
        ("赤い家。青い空。", ["赤い家。", "青い空。"]),
        ("A wall. ... Blue.", ["A wall. ...", "Blue."]),
        ("", []),
        ("  ", []),
    ],
)
def test_a_caption_is_cut_into_its_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def words_over(limit: int):
    return lambda text: max(0, len(text.split()) - limit)


def test_a_sentence_that_is_too_long_is_cut_near_a_comma_and_loses_no_word() -> None:
    text = "a red house, two blue cars and a tree, under a grey sky with birds"
    pieces = fitting(text, words_over(9))
    assert pieces == ["a red house, two blue cars and a tree,", "under a grey sky with birds"]
    assert " ".join(pieces) == text


def test_a_word_that_is_too_long_is_cut_as_well() -> None:
    pieces = fitting("x" * 100, lambda text: len(text) - 30)
    assert "".join(pieces) == "x" * 100
    assert max(map(len, pieces)) <= 30
