"""Summaries show their numbers in a notebook, and no text of a stranger is markup there."""

from dataclasses import dataclass, field
from pathlib import Path

from curate.base.telling.summaries import Summary
from curate.selection.funnel import RuleCount, SelectionSummary
from pipelines.commands.curate import CurateSummary
from pipelines.commands.recaption import RecaptionSummary

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

    shown = Many([0.5] * 30, [{"a": 1, "b": None}, {"a": True, "b": "z"}])._repr_html_()
    assert "and 10 more" in shown
    assert "<tr><th>a</th><th>b</th></tr><tr><td>1</td><td></td></tr>" in shown
    assert "xxx" not in shown
