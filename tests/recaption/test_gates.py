import pytest

from recaption.gates import GATES, GateColumns, judge, repeated_4gram_shares, zlib_ratios
from recaption.prompts import DESCRIPTIVE

GOOD = [
    "a red circle",
    "a large red circle in the top left, a small blue square in the bottom right, a large red "
    "circle in the bottom left, a small green ring in the top right, on a plain gray background",
    "two dogs, one brown and one white, run after a yellow ball on a lawn; behind them a wooden "
    "fence and three birch trees under a cloudy sky",
    "A bowl of soup with carrots, peas and noodles stands on a checked tablecloth. A spoon lies "
    "beside it. Steam rises from the bowl.",
    "A black and white photo of a man. He holds a hat, about 3.5 metres from a wall.",
    "A painting of a harbour at dusk, loose brush strokes, boats moored along a stone quay.",
    "A sign that says 'Sorry, we are closed' hangs on a wooden door.",
    'A storefront with the text "www.example.com" painted above a blue door.',
    "A row of red, red, red and blue tulips.",
    'A protest: one banner reads "I can\'t breathe", another is blank.',
    "A laptop screen with a chat between a user and an assistant; the user asks for help.",
    "An image sensor on a green circuit board, seen from above.",
    "图中一只红色的鸟站在树枝上",
    "ein rotes Fahrrad lehnt an einer Mauer aus Ziegelsteinen",
]

BAD = {
    "empty": ["", "  ", "...", "\n"],
    "too_short": ["Dog.", "circle"],
    "refusal": [
        "I'm sorry, but I can't help with that.",
        "I’m unable to view images directly.",
        "As an AI language model, I do not have eyes.",
        "Unfortunately, I cannot see any picture here.",
        "Please provide an image so that I can describe it.",
        "There is no image attached to your message.",
        "I cannot assist with this request.",
    ],
    "prompt_leak": [
        "Describe this image in one paragraph: the subject, its surroundings, a dog.",
        "the subject, its surroundings, the background, any text in it: a dog on grass.",
        "A dog on a lawn.<|im_end|>",
        "USER: what is this? ASSISTANT: a dog",
        "A dog. The text does not contain any imaginary content.",
        "The alt text says that this is a dog.",
    ],
    "loop": [
        "a red car on a road, " * 12,
        "A dog stands on a lawn beside a fence. " + "the dog is brown and the dog is " * 8,
        "red red red red red red red red red red",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b",
        "The sky is blue. The sky is blue. The sky is blue. The sky is blue. The sky is blue.",
    ],
    "url_or_markup": [
        "**Subject:** a dog on a lawn",
        "- a dog\n- a lawn\n- a fence",
        "# A dog\nIt stands on a lawn.",
        "<think>The user wants a caption.</think> A dog.",
        "A dog, see https://example.com/dog for more.",
        "A picture from stockphotos.com of a dog",
        "```a dog on a lawn```",
        '{"caption": "a dog on a lawn"}',
        "a dog &amp; a cat on a lawn",
    ],
}

OPENINGS = {
    "The image shows a red car on a road.": "A red car on a road.",
    "the image depicts two dogs": "two dogs",
    "This picture shows that it rains.": "It rains.",
    "A photo of a dog on a lawn": "A dog on a lawn",
    "In the image, there are two cats on a sofa.": "Two cats on a sofa.",
    "The image is a close-up of a leaf.": "A close-up of a leaf.",
    "We can see a tall tree.": "A tall tree.",
    "Sure! Here is a short caption: a dog runs": "A dog runs",
    "Caption: A bird on a wire.": "A bird on a wire.",
}


def columns(texts: list[str], finish: str = "stop", min_words: int = 2) -> GateColumns:
    count = len(texts)
    instructions = (DESCRIPTIVE.text, DESCRIPTIVE.alt_hint)
    return GateColumns(texts, [finish] * count, [None] * count, instructions, min_words)


def test_good_captions_pass_unchanged_and_unmarked() -> None:
    verdict = judge(columns(GOOD))
    assert verdict.reasons == [None] * len(GOOD)
    assert verdict.flags == [[]] * len(GOOD)
    assert verdict.texts == GOOD


@pytest.mark.parametrize("gate", list(BAD))
def test_bad_captions_are_rejected_for_their_own_reason(gate: str) -> None:
    verdict = judge(columns(BAD[gate]))
    assert verdict.reasons == [gate] * len(BAD[gate])
    assert all(gate in flags for flags in verdict.flags)
    assert verdict.retry.tolist() == [GATES[gate].retry_helps] * len(BAD[gate])


def test_words_about_the_picture_are_stripped_and_marked_and_the_caption_is_kept() -> None:
    verdict = judge(columns(list(OPENINGS)))
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


def test_a_copy_of_the_alt_text_is_marked_and_not_rejected() -> None:
    given = GateColumns(["A red kite!", "a blue kite", "x y"], ["stop"] * 3, ["a red kite", "", ""])
    verdict = judge(given)
    assert verdict.flags == [["alt_copy"], [], []]
    assert verdict.reasons == [None] * 3


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
