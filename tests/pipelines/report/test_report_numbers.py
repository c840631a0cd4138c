"""What a reader is told: numbers, texts, axes, curves."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from curate.base.errors import DatasetError
from curate.base.telling.words import visible
from pipelines.report import text
from pipelines.report.charts import (
    Bins,
    Estimate,
    Group,
    Line,
    Threshold,
    dot_chart,
    histogram,
    line_chart,
)
from pipelines.report.palette import Palette
from pipelines.report.pictures import thumbnail
from pipelines.report.sections.scores import bin_edges, thresholds
from pipelines.report.sections.training import POINTS, thinned
from pipelines.report.svg import Scale, ticks


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.4153, "41.5%"), (1.0, "100.0%"), (0.0, "0.0%"), (0.99999, ">99.9%"), (1e-5, "<0.1%")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float, shown: str) -> None:
    assert text.percent(share) == shown


def test_numbers_keep_three_digits_and_a_true_minus_sign() -> None:
    numbers = (0.28344, 1234.5, 56.78, -0.5, 3.0, 0.00002)
    assert [text.number(n) for n in numbers] == ["0.283", "1,234", "56.8", "−0.500", "3", "2.0e−05"]
    assert text.points(-0.0312) == "−3.1"
    assert text.interval(0.362, 0.46) == "[36.2, 46.0]"
    assert text.tick(0.2) == "0.2"


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_what_is_missing_is_a_dash_and_no_number(missing: float | None) -> None:
    for form in (text.integer, text.percent, text.number, text.points, text.seconds, text.size):
        assert form(missing) == "–"
    assert text.interval(missing, 1.0) == ""


def test_durations_and_sizes_read_like_speech() -> None:
    assert [text.seconds(s) for s in (0.84, 48, 200, 7500)] == [
        *("0.8 s", "48 s", "3 min 20 s", "2 h 05 min")
    ]
    assert [text.size(b) for b in (300, 2048, 734 << 20, 3 << 29)] == [
        *("300 bytes", "2 KiB", "734 MiB", "1.50 GiB")
    ]


def test_control_and_bidirectional_characters_become_visible() -> None:
    assert visible("a\x00b\u202ec\ud800") == "a\u2400b⟨U+202E⟩c\ufffd"
    plain = "straße, 図, 👩‍🚀, line\nend\tand tab"
    assert visible(plain) == plain


def test_ticks_are_round_and_inside_the_range() -> None:
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.31, 0.97, 4) == [0, 0.5]
    assert ticks(3, 3) == [3]
    assert Scale(0, 10, 100, 200)(5) == 150


def test_charts_escape_what_they_are_told() -> None:
    name = '<b>"x"</b>'
    palette = Palette([name])
    bins = Bins((0.0, 0.5, 1.0), {name: (3, 4)})
    charts = [
        histogram(bins, {name: "plain"}, name, [Threshold(0.5, True, "≥ 0.5 & <i>")]),
        line_chart([Line(name, [0, 1], [1, 2])], palette, name, name),
        dot_chart([Group(name, [Estimate(name, name, 0.5)])], palette, name, (0, 1), str, name),
        palette.label(name),
    ]
    for chart in charts:
        assert isinstance(chart, Markup)
        assert "<b>" not in chart
        assert "<i>" not in chart
        assert "&lt;b&gt;" in chart


def test_whiskers_without_limits_or_beyond_the_axis_are_drawn_honestly() -> None:
    palette = Palette(["alt"])
    single = Estimate("", "alt", 0.5, math.nan, math.nan, dots=[0.5])
    wide = Estimate("", "alt", 0.5, -2.0, 3.0)
    assert "whisker" not in dot_chart([Group("m", [single])], palette, "", (0, 1), str, "")
    chart = dot_chart([Group("m", [wide])], palette, "", (0, 1), str, "")
    assert chart.count('class="arrow') == 2


def test_a_curve_with_gaps_or_no_positive_value_still_draws() -> None:
    palette = Palette(["alt"])
    chart = line_chart(
        [Line("alt", [1, 2, 3], [math.nan, 0.0, 2.0])], palette, "", "", logarithmic=True
    )
    assert "nan" not in chart
    assert line_chart([Line("alt", [1], [math.nan])], palette, "", "") == ""


def test_an_arm_has_one_colour_and_marker_wherever_it_stands() -> None:
    first, second = Palette(["alt", "shuffled"]), Palette(["shuffled", "descriptive"])
    for name in ("alt", "short", "descriptive", "shuffled"):
        assert first.css(name) == second.css(name)
        assert first.marker(name) == second.marker(name)
    assert len({first.css(name) for name in ("alt", "short", "descriptive", "shuffled")}) == 4


def test_a_kind_of_caption_looks_the_same_whoever_wrote_it_and_no_arm_looks_like_it() -> None:
    first, second = Palette(["padded", "wrong"]), Palette()
    for name, other in (("a/descriptive", "b/descriptive"), ("tags", "qwen/tags")):
        assert first.css(name) == second.css(other)
        assert first.marker(name) == second.marker(other)
    names = ("alt", "short", "descriptive", "medium", "long", "tags", "padded", "wrong")
    assert len({(first.css(name), first.marker(name)) for name in names}) == len(names)
    many = Palette(map(str, range(30)))
    assert len({(many.css(str(n)), many.marker(str(n))) for n in range(20)}) == 20


def test_one_of_a_thing_is_singular() -> None:
    assert text.counted(1, "row") == "1 row"
    assert text.counted(0, "row") == "0 rows"
    assert text.counted(1234, "score is", "scores are") == "1,234 scores are"


def test_thresholds_are_read_from_simple_rules_and_others_left_alone() -> None:
    rules = ["clip_similarity >= 0.28", "(nsfw < 0.5)", "NOT duplicate", "a > 1 OR b > 1"]
    found = thresholds([*rules, "aesthetic >= top_fraction(aesthetic, 0.3)"])
    assert found == {
        "clip_similarity": [Threshold(0.28, True, "≥ 0.28")],
        "nsfw": [Threshold(0.5, False, "< 0.5")],
    }


def test_whole_numbers_get_bins_around_them() -> None:
    assert bin_edges(0, 3, whole_numbers=True) == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert len(bin_edges(0, 1000, whole_numbers=True)) <= 41
    assert bin_edges(0.0, 1.0, whole_numbers=False)[-1] == pytest.approx(1.0)


def test_a_long_curve_is_averaged_and_keeps_its_mean() -> None:
    steps = np.arange(10_000.0)
    values = np.sin(steps)
    values[::7] = np.nan
    x, y = thinned(steps, values)
    assert len(x) == len(y) == POINTS
    assert np.mean(x) == pytest.approx(np.mean(steps), rel=1e-3)
    assert thinned(steps[:3], values[:3])[0] == [1.0, 2.0]


def test_tiny_pictures_keep_their_pixels_and_large_ones_shrink() -> None:
    def encoded(side: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGBA", (side, side // 2), (255, 0, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    tiny, large = thumbnail(encoded(32), "", 96), thumbnail(encoded(800), "", 96)
    assert (tiny.width, tiny.height, tiny.tiny) == (96, 48, True)
    assert tiny.uri.startswith("data:image/png;base64,")
    assert (large.width, large.height, large.tiny) == (96, 48, False)
    assert large.uri.startswith("data:image/jpeg;base64,")
    with pytest.raises(DatasetError, match="cannot be read"):
        thumbnail(b"GIF89a, or so it says", "")
