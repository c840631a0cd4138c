"""Structured captions: one serialisation, prose by rule, what is mended and what is refused."""

from __future__ import annotations

import json
import random

import pytest

from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.writers import habitual_descriptive, habitual_short
from recaption.gates.gates import GateColumns, judge
from recaption.structured.mend import mend
from recaption.structured.prose import from_caption, prose
from recaption.structured.schema import Structured, Unread, parse, serialize

RING = '{"objects": [{"name": "ring", "attributes": ["small", "red"], "place": "top-left"}]}'


def caption_of(text: str) -> Structured:
    caption = from_caption(text)
    assert not isinstance(caption, Unread), caption
    return caption


def random_captions(count: int) -> list[Structured]:
    """Captions with every key now and then, quotes, accents and emoji among their words."""
    rng = random.Random(3)
    words = [
        '"Open" now',
        "Straße",
        "red",
        "it's",
        "熊",
        "bike 🚲",
        "a \\ b",
        "top-left",
        "{x}",
        "50%",
    ]

    def some(most: int) -> list[str]:
        return rng.sample(words, rng.randint(1, most))

    captions = []
    for _ in range(count):
        objects = []
        for _ in range(rng.randint(1, 3)):
            optional = {"attributes": some(3), "place": rng.choice(words)}
            drawn = {name: value for name, value in optional.items() if rng.random() < 0.5}
            objects.append({"name": rng.choice(words), **drawn})
        optional = {"summary": some(1)[0], "background": some(1)[0], "text": some(2)}
        drawn = {name: value for name, value in optional.items() if rng.random() < 0.5}
        captions.append({"objects": objects, **drawn})
    return captions


def test_what_is_serialised_is_read_back_and_equal_content_is_equal_bytes():
    for caption in random_captions(300):
        text = serialize(caption)
        assert parse(text) == caption
        turned = dict(reversed(caption.items()))
        turned["objects"] = [dict(reversed(one.items())) for one in caption["objects"]]
        assert serialize(turned) == text
        assert mend(json.dumps(turned, indent=2)) == caption


def test_keys_stand_in_order_and_empty_ones_are_left_out():
    caption = {"style": "", "background": "white", "text": [], "objects": [{"name": "ring"}]}
    assert serialize({**caption, "summary": "A ring"}) == (
        '{"summary": "A ring", "objects": [{"name": "ring"}], "background": "white"}'
    )


def test_the_world_s_captions_come_back_from_their_structure_word_for_word():
    scenes = sample_scenes(WorldConfig(), 200, seed=2)
    for text in [*habitual_descriptive(scenes), *habitual_short(scenes)]:
        caption = caption_of(text)
        assert prose(caption) == text
        assert parse(serialize(caption)) == caption


def test_prose_says_everything_and_its_articles_are_right():
    caption: Structured = {
        "summary": "Fruit at a market.",
        "objects": [
            {"name": "apples", "attributes": ["three", "green"], "place": "on the table"},
            {"name": "orange"},
            {"name": "sign", "attributes": ["old"], "place": "the background"},
        ],
        "background": "blurred street",
        "style": "oil painting",
        "text": ["SALE", "50%"],
    }
    assert prose(caption) == (
        "Fruit at a market. three green apples on the table, an orange, an old sign in the "
        "background, on a blurred street background, in the style of an oil painting, with the "
        'text "SALE" and "50%"'
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two dogs",
        "a red ring and a blue bar",
        "a red ring below it",
        "a white background with a red ring",
        "a ring, on a white background, on a black background",
        "on a plain white background",
        "IMG_0001.jpg",
    ],
)
def test_what_the_grammar_does_not_know_is_not_guessed(text: str):
    caption = from_caption(text)
    assert isinstance(caption, Unread)
    assert caption.reason == "unread_clause"


@pytest.mark.parametrize(
    "answer",
    [
        f"```json\n{RING}\n```",
        f"Sure! Here is the JSON: {RING} I hope this helps.",
        RING.replace("]}", "],}"),
        RING.replace('"', "'").replace("]}", "],}"),
        RING.replace('{"name"', '{"Name"').replace('"objects"', '"OBJECTS"'),
        RING.replace('"red"', "“red”"),
        RING[:-1] + ', "style": null, "text": [], "summary": ""}',
        RING[:-1].replace('"', "'") + ", 'style': None}",
        RING.replace("top-left", "  top-left\\n"),
    ],
)
def test_spelling_is_mended(answer: str):
    caption = mend(answer)
    assert not isinstance(caption, Unread), caption
    assert serialize(caption) == RING


def test_an_apostrophe_in_single_quotes_ends_no_string():
    caption = mend("{'objects': [{'name': 'dog's bowl', 'place': 'by a \"door\"'}]}")
    assert caption == {"objects": [{"name": "dog's bowl", "place": 'by a "door"'}]}


HOSTILE = {
    "no object": ("A red ring on white.", "json_syntax"),
    "cut off": (RING[:40], "json_syntax"),
    "two objects": (RING + RING, "json_syntax"),
    "nested": ('{"objects": ' + "[" * 5000 + "]" * 5000 + "}", "json_depth"),
    "nested in single quotes": ("{'a': " * 2000 + "}", "json_depth"),
    "deep": ('{"objects": [{"name": "a", "attributes": [["red"]]}]}', "json_depth"),
    "huge number": (RING[:-1] + f', "style": {"9" * 10_000}}}', "json_number"),
    "infinite": (RING[:-1] + ', "style": 1e999}', "json_number"),
    "nan": (RING[:-1] + ', "style": NaN}', "json_number"),
    "key twice": ('{"objects": [{"name": "a", "name": "b"}]}', "json_duplicate_key"),
    "key twice in capitals": (RING[:-1] + ', "OBJECTS": []}', "json_duplicate_key"),
    "control": (RING.replace("red", "r\x07d"), "json_control"),
    "spelt control": (RING.replace("red", "r\\u0000d"), "json_control"),
    "surrogate": (RING.replace("red", "r\\ud800d"), "json_control"),
    "bidi": (RING.replace("red", "\u202ered"), "json_control"),
    "long": (RING.replace("red", "r" * 30_000), "json_size"),
    "long word": (RING.replace("red", "r" * 500), "json_schema"),
    "many objects": (RING[:-2] + ', {"name": "a"}' * 60 + "]}", "json_schema"),
    "no objects": ('{"background": "white"}', "json_schema"),
    "no name": ('{"objects": [{"attributes": ["red"]}]}', "json_schema"),
    "strings": ('{"objects": ["ring"]}', "json_schema"),
    "unknown key": (RING[:-1] + ', "colour": "red"}', "json_schema"),
    "the form itself": ('{"objects": [{"name": "..."}]}', "json_schema"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_wrong_and_hostile_json_is_refused_by_name(name: str):
    text, reason = HOSTILE[name]
    refused = mend(text)
    assert isinstance(refused, Unread)
    assert refused.reason == reason
    assert isinstance(parse(text), Unread)


def test_prose_of_structured_captions_passes_the_gates():
    scenes = sample_scenes(WorldConfig(), 50, seed=4)
    texts = [prose(caption_of(text)) for text in habitual_descriptive(scenes)]
    none = [None] * len(texts)
    verdict = judge(GateColumns(texts, ["stop"] * len(texts), none))
    assert verdict.reasons == none
