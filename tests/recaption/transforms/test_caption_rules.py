"""Rules that derive captions: nested doses, no fixed points, and what each makes of a text."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest

from pipelines.world.facts import facts, scene_facts
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.words import VOCABULARY, words
from pipelines.world.writers import habitual_descriptive, habitual_short, write_descriptive
from recaption.structured.schema import Unread
from recaption.transforms.attribute_words import CLASS_OF
from recaption.transforms.attributes import by_class, usage
from recaption.transforms.clauses import split
from recaption.transforms.derivation import Derivation
from recaption.transforms.rules import Columns, apply
from recaption.transforms.shuffle import donors

SCENES = sample_scenes(WorldConfig(), 300, seed=5)
WORLD = habitual_descriptive(SCENES)
ENGLISH = [
    "A big dog runs, and a cat sits on an orange mat. The sky is blue; two birds fly.",
    "An old car stands in front of a red brick house. Mr. Smith waves, smiling.",
    "Three green apples.",
    "a wooden table",
]
DOSES = (0.05, 0.1, 0.2, 0.4, 1.0)


def columns(texts: list[str], indices: list[int] | None = None) -> Columns:
    keys = [f"{row:032x}" for row in range(len(texts))]
    return Columns(keys, indices or [0] * len(texts), texts, said=by_class(usage(texts)))


def derived(rule: str, texts: list[str], **settings: object) -> list[str]:
    made = apply(Derivation(of="descriptive", rule=rule, **settings), columns(texts))
    return ["" if isinstance(text, Unread) else text for text in made.texts]


def test_what_a_dose_exchanges_a_larger_one_exchanges_for_the_same_words():
    before = WORLD + ENGLISH
    sets = [derived("wrong_attributes", before, dose=dose) for dose in DOSES]
    for smaller, larger in pairwise(sets):
        for text, some, more in zip(before, smaller, larger, strict=True):
            for word, one, other in zip(text.split(), some.split(), more.split(), strict=True):
                # An article follows the word behind it.
                assert one in (word, other) or word.lower() in ("a", "an")


def test_a_dose_exchanges_that_share_and_every_exchanged_word_is_of_the_same_class_and_known():
    made = apply(Derivation(of="x", rule="wrong_attributes", dose=0.2), columns(WORLD))
    share = sum(made.changed) / sum(made.changeable)
    assert abs(share - 0.2) < 4 * (0.16 / sum(made.changeable)) ** 0.5
    for before, after in zip(WORLD, made.texts, strict=True):
        for word, other in zip(words(before), words(str(after)), strict=True):
            assert CLASS_OF.get(word) == CLASS_OF.get(other)
            assert other in VOCABULARY


def test_wrong_attributes_at_full_dose_leave_no_object_as_it_is():
    for scene, text in zip(SCENES, derived("wrong_attributes", WORLD, dose=1), strict=True):
        assert not set(facts(text).objects) & set(scene_facts(scene).objects)


def test_exchanged_words_keep_their_capitals_and_get_their_article():
    # Half of the words are exchanged for "orange", the only other colour.
    texts = ["A Red car", "AN ORANGE CAR", "a red car"] * 30
    made = derived("wrong_attributes", texts, dose=1)
    assert made[:3] == ["An Orange car", "A RED CAR", "an orange car"]


def test_dropped_clauses_nest_and_one_always_stays():
    before = WORLD + ENGLISH
    sets = [derived("drop_clauses", before, dose=dose) for dose in DOSES]
    for rows in zip(before, *sets, strict=True):
        kept = [[c.lower().removeprefix("and ") for c in split(text)[0]] for text in rows]
        assert all(set(more) <= set(some) for some, more in pairwise(kept))
        assert len(kept[-1]) == 1


def test_sentences_that_lose_a_clause_are_sentences_still():
    text = "A dog runs, and a cat sits. The sky is blue; two birds fly."
    numbers = np.arange(400)
    made = set(derived("drop_clauses", [text] * len(numbers), dose=0.5))
    assert "A cat sits. The sky is blue; two birds fly." in made
    assert "A dog runs. The sky is blue." in made
    assert "A dog runs, and a cat sits. Two birds fly." in made
    assert all(one[0].isupper() and one.endswith(".") and ",." not in one for one in made)


@pytest.mark.parametrize("texts", [WORLD, habitual_short(SCENES), ENGLISH * 20])
def test_a_shuffle_is_a_permutation_in_which_no_picture_keeps_its_text(texts: list[str]):
    made = derived("shuffle", texts)
    assert sorted(made) == sorted(texts)
    assert not any(before == after for before, after in zip(texts, made, strict=True))


def test_a_shuffle_does_not_rename_texts_one_for_another():
    # Equal texts must not move together, or "a red ring" would tell as much as before.
    names = [f"text {k}" for k in range(10)]
    texts = names * 100
    made = np.array(derived("shuffle", texts))
    for name in names:
        seen = {str(one) for one in made[[k for k, text in enumerate(texts) if text == name]]}
        assert len(seen) == 9


def test_a_shuffle_goes_up_to_one_text_on_half_of_the_pictures_and_no_further():
    texts = ["common"] * 50 + [f"text {k}" for k in range(50)]
    random.Random(0).shuffle(texts)
    assert not any(a == b for a, b in zip(texts, derived("shuffle", texts), strict=True))
    keys = [f"{row:032x}" for row in range(101)]
    assert donors(keys, [*texts, "common"], [0] * 101) is None


def test_a_picture_with_several_texts_gets_none_of_its_own():
    keys = [f"{row // 2:032x}" for row in range(80)]
    texts = [f"text {row // 3}" for row in range(80)]
    given = donors(keys, texts, [row % 2 for row in range(80)])
    assert given is not None
    own = {key: {t for k, t in zip(keys, texts, strict=True) if k == key} for key in keys}
    assert not any(texts[giver] in own[key] for key, giver in zip(keys, given, strict=True))


def test_random_lengths_run_evenly_from_the_first_clause_to_the_whole():
    rule = Derivation(of="descriptive", rule="random_length", cuts=3)
    made = apply(rule, columns([ENGLISH[0], "one clause"], [0, 1]))
    assert list(made.rows) == [0, 0, 0, 1, 1, 1]
    assert list(made.indices) == [0, 1, 2, 3, 4, 5]
    assert made.texts == [
        "A big dog runs.",
        "A big dog runs, and a cat sits on an orange mat.",
        ENGLISH[0],
        *["one clause"] * 3,
    ]


def test_padding_repeats_to_the_words_of_the_other_caption_and_cuts_nothing_off():
    keys = ["a", "b", "c"]
    texts = ["red ring", "long enough already here", "no other"]
    like = {"a": "one two three four five", "b": "one two"}
    made = apply(Derivation(of="alt", rule="pad", like="x"), Columns(keys, [0] * 3, texts, like))
    assert made.texts == ["red ring red ring red", texts[1], Unread("no_like_caption")]


def test_tags_are_the_runs_of_content_words_or_exactly_a_structured_captions_objects():
    text = "A small red ring in the top-left, on a striped white background."
    structured = '{"objects": [{"name": "ring", "attributes": ["small", "red"]}, {"name": "bar"}]}'
    assert derived("tags", [text, structured, "two dogs"]) == [
        "small red ring, top-left, striped white background",
        "small red ring, bar",
        "two dogs",
    ]


def test_captions_that_the_small_grammar_cannot_read_are_no_structured_ones():
    texts = write_descriptive(SCENES[:40], seed=1)
    made = apply(Derivation(of="descriptive", rule="json"), columns([*texts, *ENGLISH]))
    unread = [text for text in made.texts if isinstance(text, Unread)]
    assert {one.reason for one in unread} == {"unread_clause"}
    assert 0 < len(unread) < len(made.texts)
