import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from answer_lists import LOOKS_ODD, NO_CAPTIONS
from caption_lists import BAD, GOOD, GOOD_SHORT, OPENINGS

from curate.base.errors import ConfigError
from recaption.gates.gates import (
    GATES,
    GateColumns,
    judge,
    repeated_4gram_shares,
    zlib_ratios,
)
from recaption.gates.registry import (
    ADDED_NUMBERS,
    DEFAULT_REJECTS,
    NEAR_DUPLICATE,
    TOO_LONG,
    Gate,
    with_own,
)
from recaption.prompts.templates import DESCRIPTIVE

LOOKS_AT_MORE_THAN_THE_TEXT = {
    "truncated",
    "below_alt_text",
    "banned_opening",
    "alt_copy",
    NEAR_DUPLICATE,
    TOO_LONG,
    ADDED_NUMBERS,
    "added_words",
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


@pytest.mark.parametrize("good", [GOOD, LOOKS_ODD], ids=["good", "odd"])
def test_good_captions_pass_unchanged_and_unmarked(good: list[str]) -> None:
    verdict = judge(columns(good))
    wrong = [(text, flags) for text, flags in zip(good, verdict.flags, strict=True) if flags]
    assert wrong == []
    assert verdict.reasons == [None] * len(good)
    assert verdict.texts == good


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


QUOTES = ["{}", '"{}"', "“{}”", "‘{}’", "«{}»", "„{}“", "「{}」", "*{}*", "_{}_", "**{}**", "`{}`"]
QUOTES += ['*"{}"*', '"*{}*".', '"""{}"""', 'Caption: "{}"', "  “'{}'”\n"]


def test_no_quotes_hide_an_answer_that_is_no_caption() -> None:
    # Behind a label the lines are joined, so there a role in a line of its own is no longer seen.
    pairs = [
        (gate, quotes.format(text))
        for gate, texts in NO_CAPTIONS.items()
        for text in texts
        for quotes in QUOTES
        if not ("Caption" in quotes and "\n" in text)
    ]
    reasons = judge(columns([text for _, text in pairs], language="")).reasons
    passed = [text for (_, text), reason in zip(pairs, reasons, strict=True) if reason is None]
    assert passed == []
    bare = [text for texts in NO_CAPTIONS.values() for text in texts]
    named = [gate for gate, texts in NO_CAPTIONS.items() for _ in texts]
    assert judge(columns(bare, language="")).reasons == named


def test_quotes_around_all_of_a_caption_are_no_part_of_it() -> None:
    plain = [text for text in GOOD if not {*'"“„「'} & {*text}][:20]
    texts = [quotes.format(text) for text in plain for quotes in QUOTES]
    meant = [text for text in plain for _ in QUOTES]
    said = judge(columns(texts, language="")).texts
    wrong = [
        (text, found)
        for text, found, right in zip(texts, said, meant, strict=True)
        if found.rstrip(".") != right.rstrip(".")
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        '"Open" and "late" signs glow in a window; one reads "closed"',
        "*A* and *B* are written on two doors, *C* on a third one, *D*",
        "«Entrada» y «Salida»: two signs, the one below reads «Caja»",
        "'Fishes' and 'Chips' on two shop fronts in a street of 'Delis'",
        '"Route 66" on a road sign beside a neon arrow with "Motel"',
        "The dogs' bowl and the cats' basket stand beside a 12\" ruler",
        "A man says 'no', a woman says 'yes'",
    ],
)
def test_a_caption_that_begins_and_ends_with_other_quotes_keeps_them(text: str) -> None:
    assert judge(columns([text])).texts == [text]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("A red\0 bicycle leans\b on a wall.\x1b[0m", "A red bicycle leans on a wall."),
        ("\x1b[1;31mA red\x1b[0m bicycle.\x1b]0;title\x07", "A red bicycle."),
        ("\x9b31mA red bicycle.\x1b[", "A red bicycle."),
        ("A \x1bred \x1b(Bbicycle, \\x1b[0mleft.", "A red bicycle, left."),
        ("A \u202ered\u202c bi\u200bcycle\ufeff.\u2069", "A red bicycle."),
        ("A r\u00aded\u2060 bicy\u200ccle \ufffc.\U000e0041\ufe0f", "A red bicycle ."),
        ("A red bicycle \ufffd.", "A red bicycle."),
        ("A red\u2028bicycle\u00a0on\r\n\ta wall.", "A red bicycle on a wall."),
    ],
)
def test_what_is_no_text_leaves_a_caption(said: str, meant: str) -> None:
    verdict = judge(columns([said]))
    assert (verdict.texts, verdict.reasons) == ([meant], [None])


@pytest.mark.parametrize(
    "text",
    [
        "A sign reads «مرحبا» 🚲 beside a red bicycle.",
        "A family 👨\u200d👩\u200d👧, a heart ❤\ufe0f\u200d🔥 and a key 1\ufe0f\u20e3 on a screen.",
        "The flag 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f on a mug.",
        "The word «می\u200cخواهم» and the letters क\u094d\u200dष on a wall.",
    ],
)
def test_joiners_inside_of_emoji_and_words_are_text(text: str) -> None:
    assert judge(columns([text])).texts == [text]


def test_a_list_of_numbers_that_was_cut_off_has_no_whole_sentence() -> None:
    texts = ["A table with items: 1. 2. 3. 4. 5. 6. 7.", "A house from 1967. Behind it stan"]
    verdict = judge(columns(texts, finish="length"))
    assert verdict.reasons == ["truncated", None]
    assert verdict.texts[1] == "A house from 1967."


def test_a_text_that_was_repaired_before_is_not_repaired_again() -> None:
    given = columns(['"The image shows a dog"'])
    assert judge(given, repaired=["A hound"]).texts == ["A hound"]


def shouted(columns: GateColumns) -> list[bool]:
    return [text.isupper() for text in columns.texts]


SHOUTED = Gate(shouted, rejects=True, retry_helps=False, meaning="all in capitals")


def test_a_gate_of_ones_own_joins_the_others_by_its_place() -> None:
    own = f"{__name__}:SHOUTED"
    gates = with_own([own])
    verdict = judge(columns(["A DOG RUNS", "a dog runs"]), [*DEFAULT_REJECTS, own], gates)
    assert verdict.reasons == [own, None]
    with pytest.raises(ConfigError, match="is no gate"):
        with_own(["math:pi"])
    with pytest.raises(ConfigError, match="'empty' is built in"):
        with_own(["empty"])


def test_a_gate_of_ones_own_that_raises_flags_the_caption_it_raised_for_and_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def choosy(columns: GateColumns) -> list[bool]:
        return [text.index("dog") > 5 for text in columns.texts]  # raises where there is none

    gates = {**GATES, "own": Gate(choosy, rejects=True, retry_helps=False, meaning="late")}
    verdict = judge(columns(["A dog runs.", "A cat runs.", "There is a dog."]), ["own"], gates)
    assert verdict.reasons == [None, "own", "own"]
    assert capsys.readouterr().err.count("the gate own raised ValueError: substring") == 1
    few = {"few": Gate(lambda _: [True], rejects=True, retry_helps=False, meaning="")}
    with pytest.raises(ConfigError, match="few must give 2 flags for 2 captions"):
        judge(columns(["a", "b"]), ["few"], few)


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
    loops = BAD["loop"][3:]  # behind those that count
    long_ones = [text for text in GOOD if len(text) > 60]
    assert zlib_ratios(long_ones).max() < 2.5 < 4.0 < zlib_ratios(loops[:1]).min()
    assert repeated_4gram_shares(long_ones).max() < 0.2
    assert repeated_4gram_shares(loops[:3]).min() > 0.5


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
    page = (Path(__file__).parents[3] / "docs" / "recaption.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    said = {row[0].strip("| `"): row[2] for row in rows if len(row) == 4}
    assert said == {name: "rejects" if gate.rejects else "marks" for name, gate in GATES.items()}
