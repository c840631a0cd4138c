import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from caption_lists import BAD, GOOD, GOOD_SHORT, OPENINGS

from recaption.gates import (
    GATES,
    NEAR_DUPLICATE,
    GateColumns,
    judge,
    repeated_4gram_shares,
    zlib_ratios,
)
from recaption.prompts import DESCRIPTIVE

LOOKS_AT_MORE_THAN_THE_TEXT = {
    "truncated",
    "below_alt_text",
    "banned_opening",
    "alt_copy",
    NEAR_DUPLICATE,
}


def columns(texts: list[str], finish: str = "stop", min_words: int = 2, language: str = "en"):
    count = len(texts)
    return GateColumns(
        texts,
        [finish] * count,
        [None] * count,
        DESCRIPTIVE.instructions(),
        min_words,
        [language] * count,
    )


def test_good_captions_pass_unchanged_and_unmarked() -> None:
    verdict = judge(columns(GOOD))
    wrong = [(text, flags) for text, flags in zip(GOOD, verdict.flags, strict=True) if flags]
    assert wrong == []
    assert verdict.reasons == [None] * len(GOOD)
    assert verdict.texts == GOOD


def test_one_word_is_a_caption_where_the_kind_allows_it() -> None:
    verdict = judge(columns(GOOD_SHORT, min_words=1))
    assert verdict.flags == [[]] * len(GOOD_SHORT)


@pytest.mark.parametrize("gate", list(BAD))
def test_bad_captions_are_rejected_for_their_own_reason(gate: str) -> None:
    verdict = judge(columns(BAD[gate]))
    wrong = [
        (text, reason)
        for text, reason in zip(BAD[gate], verdict.reasons, strict=True)
        if reason != gate
    ]
    assert wrong == []
    assert all(gate in flags for flags in verdict.flags)
    assert verdict.retry.tolist() == [GATES[gate].retry_helps] * len(BAD[gate])


def test_the_lists_try_every_gate_that_looks_at_the_text_alone() -> None:
    assert {*BAD, *LOOKS_AT_MORE_THAN_THE_TEXT} == {*GATES}
    assert sum(map(len, BAD.values())) >= 60 <= len(GOOD)


def test_words_about_the_picture_are_stripped_and_marked_and_the_caption_is_kept() -> None:
    verdict = judge(columns(list(OPENINGS), min_words=1))
    assert verdict.texts == list(OPENINGS.values())
    assert verdict.reasons == [None] * len(OPENINGS)
    assert verdict.flags == [["banned_opening"]] * len(OPENINGS)


def test_a_cut_off_caption_is_cut_back_to_its_last_whole_sentence() -> None:
    texts = ["A dog runs on a lawn. Behind it is a fen", "Dr. Smith, e.g. in a hat. He is"]
    verdict = judge(columns(texts, finish="length"))
    assert verdict.texts == ["A dog runs on a lawn.", "Dr. Smith, e.g. in a hat."]
    assert verdict.reasons == [None, None]
    assert verdict.flags == [["truncated"], ["truncated"]]


def test_a_cut_off_caption_without_a_whole_sentence_is_rejected() -> None:
    verdict = judge(columns(["a dog that runs over the", "Yes. a dog that"], finish="length"))
    assert verdict.reasons == ["truncated", "truncated"]


def test_a_loop_that_the_cut_leaves_out_is_mended() -> None:
    text = "A dog runs on a wide lawn in the evening sun. " + "It is a dog and " * 9
    verdict = judge(columns([text], finish="length"))
    assert verdict.texts == ["A dog runs on a wide lawn in the evening sun."]
    assert verdict.reasons == [None]
    assert verdict.flags == [["loop", "truncated"]]


def test_a_copy_of_the_alt_text_is_marked_and_not_rejected() -> None:
    stock = "Red kite gliding over a green hill in Wales | Stock Photo 1234"
    pairs = {
        "A red kite!": "a red kite",
        "Red kite gliding over a green hill in Wales.": stock,
        "a blue kite": "",
        "x y": None,
        "A red kite with a forked tail glides over a green hill below a grey sky.": stock,
        "a kite": "a red kite",
    }
    verdict = judge(replace(columns(list(pairs)), alt_texts=list(pairs.values())))
    assert verdict.flags == [["alt_copy"], ["alt_copy"], [], [], [], []]
    assert verdict.reasons == [None] * 6


def test_a_caption_that_fits_worse_than_the_alt_text_is_marked_and_rejected_where_asked() -> None:
    texts = ["a red kite over a hill", "a blue kite over a hill", "a kite over a hill"]
    given = replace(columns(texts), advantages=[-0.01, 0.02, float("nan")])
    assert judge(given).flags == [["below_alt_text"], [], []]
    assert judge(given).reasons == [None] * 3
    strict = judge(given, rejects=("below_alt_text",))
    assert strict.reasons == ["below_alt_text", None, None]
    assert strict.retry.tolist() == [True, False, False]


def test_each_caption_is_held_to_its_own_language() -> None:
    german = next(text for text in BAD["language"] if text.startswith("Ein "))
    texts = [GOOD[-1], german, BAD["language"][0]]
    for languages, flagged in (
        (["en", "de", "zh"], []),
        (["de", "en", "en"], [0, 1, 2]),
        (["", "", ""], []),
        ([], []),
    ):
        verdict = judge(replace(columns(texts), languages=languages))
        assert [row for row, flags in enumerate(verdict.flags) if "language" in flags] == flagged


def test_which_gates_reject_can_be_chosen() -> None:
    loop = BAD["loop"][:1]
    assert judge(columns(loop), rejects=("empty",)).reasons == [None]
    assert judge(columns(loop), rejects=("empty",)).flags == [["loop"]]


def test_loops_and_good_captions_lie_far_apart_on_both_measures() -> None:
    long_ones = [text for text in GOOD if len(text) > 60]
    assert zlib_ratios(long_ones).max() < 2.5 < 4.0 < zlib_ratios(BAD["loop"][:1]).min()
    assert repeated_4gram_shares(long_ones).max() < 0.2
    assert repeated_4gram_shares(BAD["loop"][:3]).min() > 0.5


def test_no_captions_give_an_empty_verdict() -> None:
    assert judge(columns([])).texts == []


def test_captions_that_people_wrote_are_seldom_flagged(real_data: Path, capsys) -> None:
    """Alt texts of textbook figures: long, careful, with tables and formulas among them."""
    lines = (real_data / "openstax" / "captions.jsonl").read_text().splitlines()
    texts = [text for text in (json.loads(line)["alt"] for line in lines) if text]
    verdict = judge(columns(texts, min_words=1))
    counted = Counter(flag for flags in verdict.flags for flag in flags)
    with capsys.disabled():
        print(f"\n{len(texts)} human captions:", dict(counted))
    assert len(texts) > 1500
    rates = {gate: counted[gate] / len(texts) for gate in GATES}
    # They may open with "The image shows": that is no false alarm, and it is mended.
    assert rates.pop("banned_opening") < 0.5
    assert {gate: rate for gate, rate in rates.items() if rate > 0.01} == {}
    rejected = sum(reason is not None for reason in verdict.reasons) / len(texts)
    assert rejected < 0.015


def test_long_prompts_of_a_benchmark_are_seldom_flagged(real_data: Path, capsys) -> None:
    """DPG-Bench's 1,065 detailed prompts, which no rule was written for: held out."""
    folder = real_data / "eval_prompts" / "dpg_bench" / "prompts"
    texts = [path.read_text().strip() for path in sorted(folder.glob("*.txt"))]
    verdict = judge(columns(texts))
    with capsys.disabled():
        counted = Counter(flag for flags in verdict.flags for flag in flags)
        print(f"\n{len(texts)} prompts of DPG-Bench:", dict(counted))
    assert len(texts) > 1000
    assert sum(reason is not None for reason in verdict.reasons) / len(texts) < 0.005


def test_the_documentation_names_every_gate_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recaption.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    said = {row[0].strip("| `"): row[2] for row in rows if len(row) == 4}
    assert said == {name: "rejects" if gate.rejects else "marks" for name, gate in GATES.items()}
