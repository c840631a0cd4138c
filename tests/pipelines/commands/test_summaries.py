"""Summaries show their numbers in a notebook, and no text of a stranger is markup there."""

import ast
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.selection.funnel import RuleCount, SelectionSummary
from pipelines.commands.captions import CaptionsSummary
from pipelines.commands.curate import CurateSummary
from pipelines.commands.recaption import RecaptionSummary
from recaption.judging.measure import MeasuredSets
from recaption.judging.settings import JudgeSettings

ROOT = Path(__file__).parents[3]
HOSTILE = "<script>alert('&')</script>"


def test_a_curation_shows_its_numbers_and_its_funnel():
    funnel = (RuleCount(f"width > 1 {HOSTILE}", 3, 1, 2, 0, 1234),)
    selection = SelectionSummary("good", HOSTILE, 2000, 1500, 1234, funnel, True)
    summary = CurateSummary(
        Path("/data/<b>"), 2000, 1500, 500, {"http_404": 500}, None, None, {"near": 7}, selection
    )
    shown = summary._repr_html_()
    assert "<script>" not in shown
    assert shown.count("<b>") == 1
    assert "width &gt; 1 &lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;" in shown
    for number in ("2,000", "1,500", "http_404 500", "near 7", "1,234"):
        assert number in shown
    assert shown.count("<table>") == shown.count("</table>") == 3
    assert summary.text().startswith("\nduplicates: near 7\nSelection 'good': 1,234 of 1,500")


def test_names_of_kinds_and_reasons_are_texts_too():
    summary = RecaptionSummary(HOSTILE, {f"{HOSTILE} ok": 3}, {})
    assert "<script>" not in summary._repr_html_()
    assert "accepted" not in summary._repr_html_()


def test_long_lists_are_cut_and_hidden_fields_left_out():
    @dataclass(frozen=True)
    class Many(Summary):
        values: list[float]
        rows: list[dict]
        table: str = field(default="x" * 99, repr=False)

    many = Many([0.5] * 30, [{"a": 1, "b": None}, {"a": True, "b": "z"}])
    assert str(Many([0.5], [])) == "values: [0.5]\nrows: []"
    shown = many._repr_html_()
    assert "and 10 more" in shown
    assert "<tr><th>a</th><th>b</th></tr><tr><td>1</td><td></td></tr>" in shown
    assert "xxx" not in shown
    assert Many([], [{"a": "one\n<two>"}])._repr_html_().count("<pre>one\n&lt;two&gt;</pre>") == 1


def test_whatever_says_what_a_command_prints_shows_itself_in_a_notebook():
    without = [
        f"{path.name}: {node.name}"
        for room in ("curate", "recaption", "train", "pipelines")
        for path in (ROOT / room).rglob("*.py")
        if 'def text(self) -> str:\n        """What the command prints' in path.read_text()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        if any(isinstance(one, ast.FunctionDef) and one.name == "text" for one in node.body)
        if "Summary" not in [node.name, *(b.id for b in node.bases if isinstance(b, ast.Name))]
    ]
    assert not without


# A count with what it counts; a constant's number is known.
COUNTED = re.compile(
    r"\{[^{}A-Z]+:,\} (?:(?:stored|training|new|held-out|temporary) )?"
    r"(?:shard|sample|row|picture|caption|text|step|prompt|file|pair|worker)s\b"
)


def test_counted_words_are_said_by_amount_which_knows_of_one():
    assert (amount(1, "row"), amount(1234, "row")) == ("1 row", "1,234 rows")
    assert (amount(0, "file is", "files are"), amount(1, "box", "boxes")) == (
        "0 files are",
        "1 box",
    )
    rooms = (
        path for room in ("curate", "recaption", "train") for path in (ROOT / room).rglob("*.py")
    )
    hall = (
        path
        for room in ("ablation", "commands", "demo", "judges", "report", "runners", "view")
        for path in (ROOT / "pipelines" / room).rglob("*.py")
    )
    found = {path.name: COUNTED.findall(path.read_text()) for path in (*rooms, *hall)}
    assert not {name: words for name, words in found.items() if words}


def test_what_captions_are_like_is_the_text_that_the_command_prints():
    found = MeasuredSets([], True, 0, 0, reason=HOSTILE)
    summary = CaptionsSummary(found, None, JudgeSettings())
    assert summary._repr_html_() == f"<pre>{escape(summary.text())}</pre>"
