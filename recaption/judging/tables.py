"""Measures as tables: the same rows for a terminal and for the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from curate.base.telling.words import amount
from recaption.judging.caption_sets import CaptionSet
from recaption.judging.compare import Comparison, Difference
from recaption.judging.counts import WINDOW
from recaption.judging.doubts import near_chance
from recaption.judging.fingerprint import CHANCE
from recaption.judging.intervals import Estimate
from recaption.judging.measure import MeasuredSets, SampleMeasures, SetMeasures
from recaption.judging.retrieval import GROUP, LEAST_GROUPS

MISSING = "-"
REASONS_SHOWN = 6
# Sets side by side in a terminal's table.
_ABREAST = 4


@dataclass(frozen=True)
class Row:
    """A measure of every set; `cells` in the order of the sets."""

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Measures that belong together."""

    title: str
    rows: tuple[Row, ...]


def measure_groups(measures: MeasuredSets) -> list[Group]:
    """The table of all sets; rows that no set has a value for are left out."""
    sets = measures.sets
    groups = [
        Group("all captions", (*_count_rows(sets), *_length_rows(sets))),
        Group(_sample_title(measures), tuple(_sample_rows(sets))),
        Group(f"own picture among {GROUP}", tuple(_retrieval_rows(sets))),
        Group(f"against {measures.truth}", tuple(_truth_rows(sets))),
    ]
    kept = [
        Group(group.title, tuple(row for row in group.rows if set(row.cells) - {MISSING}))
        for group in groups
    ]
    return [group for group in kept if group.rows]


def measures_text(measures: MeasuredSets) -> str:
    """What `caplab captions DIR` prints."""
    names = [one.set.name for one in measures.sets]
    groups = measure_groups(measures)
    blocks = []
    for start in range(0, len(names), _ABREAST):
        part = slice(start, start + _ABREAST)
        width = max(len(row.label) for group in groups for row in group.rows) + 4
        cell = max(28, *(len(name) + 2 for name in names[part]))
        lines = [_line("", names[part], width, cell)]
        for group in groups:
            lines += ["", group.title]
            lines += [_line("  " + row.label, row.cells[part], width, cell) for row in group.rows]
        blocks.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join([*blocks, *_remarks(measures)])


def comparison_text(comparison: Comparison) -> str:
    """What `caplab captions DIR --compare A B` prints."""
    a, b = comparison.a.name, comparison.b.name
    head = ("measure", a, b, "a - b [95% over pictures]")
    rows = [head, *(difference_cells(row) for row in comparison.differences)]
    widths = [max(len(row[place]) for row in rows) + 2 for place in range(4)]
    lines = [
        row[0].ljust(widths[0])
        + "".join(row[place].rjust(widths[place]) for place in (1, 2))
        + "   "
        + row[3]
        for row in rows
    ]
    told = comparison.fingerprint
    remarks = [f"{amount(comparison.pictures, 'picture')}. Each line is {comparison.label}."]
    clear = sum(row.starred for row in comparison.differences)
    remarks.append(
        f"{clear} of {len(comparison.differences)} intervals exclude zero (*); with no difference "
        f"at all about one in twenty would."
    )
    if told is not None and not math.isnan(told.value):
        remarks.append(f"A classifier tells the two apart at {estimate(told)}, chance {CHANCE}.")
    return "\n".join([*lines, "", *remarks, *(f"Note: {note}." for note in comparison.notes)])


def difference_cells(row: Difference) -> tuple[str, str, str, str]:
    """Measure, both values and the difference; * where its interval excludes zero, unless the judge
    is in doubt.
    """
    gap = row.difference
    limits = "" if math.isnan(gap.low) else f" [{gap.low:+.3g}, {gap.high:+.3g}]"
    if gap.value == gap.low == gap.high == 0:
        return row.measure, number(row.a), number(row.b), "0 on every picture drawn"
    star = " *" if row.starred else ""
    return row.measure, number(row.a), number(row.b), f"{gap.value:+.3g}{limits}{star}"


def number(value: float) -> str:
    """Three significant digits; whole numbers above 100 with separators."""
    if math.isnan(value):
        return MISSING
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.3g}"


def share(value: float) -> str:
    """0.4153 -> "41.5%"."""
    return MISSING if math.isnan(value) else f"{100 * value:.1f}%"


def estimate(value: Estimate | None) -> str:
    """A share with its limits: "0.968 [0.961, 0.975]"."""
    if value is None or math.isnan(value.value):
        return MISSING
    if math.isnan(value.low):
        return f"{value.value:.3f}"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


# ---- rows ---------------------------------------------------------------------------------------


def _count_rows(sets: Sequence[SetMeasures]) -> list[Row]:
    def row(label: str, of: Callable[[SetMeasures], str]) -> Row:
        return Row(label, tuple(of(one) for one in sets))

    def part(one: SetMeasures, count: int) -> str:
        return share(count / one.counts.rows) if one.counts.rows else MISSING

    rows = [
        row("captions", lambda one: f"{one.counts.rows:,}"),
        row("accepted", lambda one: part(one, one.counts.accepted)),
        row("more than one try", lambda one: part(one, one.counts.retried)),
        row("cut by the token limit", lambda one: part(one, one.counts.cut)),
    ]
    reasons: dict[str, int] = {}
    for one in sets:
        for reason, count in one.counts.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    for reason in sorted(reasons, key=lambda name: -reasons[name])[:REASONS_SHOWN]:
        rows.append(
            row(
                f"not accepted: {reason}",
                lambda one, reason=reason: part(one, one.counts.reasons.get(reason, 0)),  # type: ignore[misc]
            )
        )
    for flag, label in (("alt_copy", "copies of the alt text"), ("near_duplicate", "near copies")):
        if any(flag in one.counts.flags for one in sets):
            rows.append(
                row(
                    label,
                    lambda one, flag=flag: (  # type: ignore[misc]
                        MISSING if one.set.is_human else part(one, one.counts.flags.get(flag, 0))
                    ),
                )
            )
    return rows


def _length_rows(sets: Sequence[SetMeasures]) -> list[Row]:
    rows = []
    for name, label in (
        ("words", "words"),
        ("clip_tokens", "CLIP tokens"),
        ("t5_tokens", "T5 tokens"),
    ):
        found = [one.counts.distributions[name] for one in sets]
        spans = [
            f"{number(d.quantile(0.5))} ({number(d.quantile(0.05))} to {number(d.quantile(0.95))})"
            if d.total
            else MISSING
            for d in found
        ]
        rows.append(Row(f"{label}: median (5% to 95%)", tuple(spans)))
        if name != "words":
            over = tuple(share(d.share_above(WINDOW)) for d in found)
            rows.append(Row(f"{label}: over {WINDOW}", over))
    for name, label in (
        ("clip_similarity", "CLIP similarity"),
        ("clip_sentence_mean", "CLIP similarity, mean of sentences"),
    ):
        found = [one.counts.distributions[name] for one in sets]
        rows.append(
            Row(
                f"{label}: median (5% to 95%)",
                tuple(
                    f"{d.quantile(0.5):.3f} ({d.quantile(0.05):.3f} to {d.quantile(0.95):.3f})"
                    if d.total
                    else MISSING
                    for d in found
                ),
            )
        )
    return rows


def _sample_rows(sets: Sequence[SetMeasures]) -> list[Row]:
    def row(label: str, of: Callable[[SampleMeasures], str]) -> Row:
        return Row(label, tuple(MISSING if s.sample is None else of(s.sample) for s in sets))

    def top(found: dict[str, float], count: int, quote: str = "") -> str:
        some = list(found.items())[:count]
        return ", ".join(f"{quote}{name}{quote} {100 * part:.0f}%" for name, part in some)

    counted = any(one.counts.distributions["clip_tokens"].total for one in sets)
    tokens = [] if counted else [
        row("CLIP tokens: median", lambda s: number(s.clip_tokens.p50)),
        row(f"CLIP tokens: over {WINDOW}", lambda s: share(s.clip_tokens.over)),
    ]  # fmt: skip
    known = any(one.counts.distributions["t5_tokens"].total for one in sets)
    tokens += [] if known else [
        row("T5 tokens: median", lambda s: number(s.t5_tokens.p50)),
        row(f"T5 tokens: over {WINDOW}", lambda s: share(s.t5_tokens.over)),
    ]  # fmt: skip
    return [
        *tokens,
        row("different texts", lambda s: share(s.distinct_texts)),
        row("distinct-1", lambda s: number(s.distinct_1)),
        row("distinct-2", lambda s: number(s.distinct_2)),
        row("MATTR, 500 words", lambda s: number(s.mattr)),
        row("commonest opening", lambda s: top(s.openings, 1, '"')),
        row("five commonest openings", lambda s: share(sum(s.openings.values()))),
        row("first characters", lambda s: top(s.habits.first_characters, 3)),
        row("last characters", lambda s: top(s.habits.last_characters, 3)),
        row("begins with a capital", lambda s: share(s.habits.capitalised)),
        row("all in lower case", lambda s: share(s.habits.lower_case)),
        row("ends with a full stop", lambda s: share(s.habits.full_stop)),
        row("begins with a, an, the", lambda s: share(s.habits.article)),
        row("zlib ratio, mean", lambda s: number(s.habits.zlib_ratio)),
        row("repeated 4-grams, mean", lambda s: share(s.habits.repeated_4grams)),
    ]


def _retrieval_rows(sets: Sequence[SetMeasures]) -> list[Row]:
    def first(one: SetMeasures) -> str:
        return estimate(one.retrieval) + (", near chance" if near_chance(one.retrieval) else "")

    return [
        Row("found first (R@1)", tuple(first(one) for one in sets)),
        Row("captions shuffled", tuple(estimate(one.retrieval_shuffled) for one in sets)),
    ]


def _truth_rows(sets: Sequence[SetMeasures]) -> list[Row]:
    right = [one.rightness for one in sets]
    kinds = list(dict.fromkeys(kind for r in right if r is not None for kind in r.precision))
    rows = [Row("captions judged", tuple(f"{r.pictures:,}" if r else MISSING for r in right))]
    for kind in kinds:
        for side in ("precision", "recall"):
            cells = [estimate(getattr(r, side)[kind]) if r is not None else MISSING for r in right]
            rows.append(Row(f"{kind} {side}", tuple(cells)))
    chairs = [(r.chair_i, r.chair_s) if r is not None else (None, None) for r in right]
    return [
        *rows,
        Row("CHAIR_i, hallucinated mentions", tuple(estimate(i) for i, _ in chairs)),
        Row("CHAIR_s, captions with one", tuple(estimate(s) for _, s in chairs)),
    ]


def _sample_title(measures: MeasuredSets) -> str:
    counts = {one.sample.captions for one in measures.sets if one.sample is not None}
    if not counts:
        return "no accepted captions"
    most = max(counts)
    if measures.shared:
        same = amount(most, "picture")
        return f"the same {same}, of {measures.candidates:,} with a caption of each"
    return f"{amount(most, 'caption')} each; no picture has one of every set"


def _remarks(measures: MeasuredSets) -> list[str]:
    remarks = [
        f"distinct-1 and -2 are over the first {measures.words_compared:,} words of each set."
    ]
    if measures.groups:
        remarks.append(
            f"R@1: {measures.groups} groups of {GROUP} pictures, chance {1 / GROUP:.3f}; "
            + (
                "the interval is over groups."
                if measures.groups >= LEAST_GROUPS
                else f"fewer than {LEAST_GROUPS} groups give no interval."
            )
        )
    elif measures.reason:
        remarks.append(f"R@1 was not measured: {measures.reason}.")
    for one in measures.fingerprints:
        remarks.append(
            f"A classifier tells {one.a.name} from {one.b.name} at {estimate(one.accuracy)}, "
            f"chance {CHANCE} ({amount(one.accuracy.pictures, 'picture')})."
        )
    remarks += [f"{few_note(one)}." for one in measures.few]
    remarks += [f"Doubt: {doubt}." for one in measures.sets for doubt in one.doubts]
    return ["\n".join([*remarks, *measures.truth_notes])]


def few_note(one: CaptionSet) -> str:
    """Why a set of people was only counted."""
    return (
        f"{one.name} has too few captions to be compared on the pictures of all sets; "
        f"--compare {one.name} OTHER compares it on its own"
    )


def _line(label: str, cells: Sequence[str], width: int, cell_width: int) -> str:
    return label.ljust(width) + "".join(cell.rjust(cell_width) for cell in cells)
