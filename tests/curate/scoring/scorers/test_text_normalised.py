"""The readable copy of a text."""

import pytest

from curate.scoring.scorers.text_basics import TextNormalised, normalised


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \u00a0 red\r\n\tball\u3000", "a red ball"),
        ("Tom &amp; Jerry &amp;quot;live&amp;quot; &#233;", 'Tom & Jerry "live" é'),
        ("<p>One<br/>two</p><!-- no --> <b class='x'>three</b>", "One two three"),
        ("5 < 6 and 7 > 2 <3", "5 < 6 and 7 > 2 <3"),
        ("cafe\u0301", "café"),
        ("zero\u200bwidth\ufeff \u202eturned", "zerowidth turned"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("", ""),
    ],
)
def test_a_text_is_made_readable(text, expected):
    assert normalised(text) == expected
    assert normalised(expected) == expected


def test_a_missing_text_stays_missing():
    column = TextNormalised().score({"alt_text": ["x ", None]})["text_normalised"]
    assert column.to_pylist() == ["x", None]
