"""The words by which a caption's grammar is told: articles, numbers, breaks, traps."""

from __future__ import annotations


def _ordered(text: str) -> list[str]:
    return text.split()


def _words(text: str) -> frozenset[str]:
    return frozenset(_ordered(text))


NUMBERS = {
    word: number
    for number, word in enumerate(
        _ordered("zero one two three four five six seven eight nine ten eleven twelve")
    )
} | {"single": 1, "dozen": 12}
MARKS = frozenset(".,;:!?()\n")
DETERMINERS = _words(
    "a an the this that these those his her its their my our your some several many few no "
    "any each every another both all"
)
COPULAS = _words("is are was were be looks look appears appear")
# Words at which a noun phrase cannot go on.
BREAKS = _words(
    "of in on at by with and or but to from near next beside behind between under over above "
    "below around through while as has have had along across into onto against inside outside "
    "for who which where there than wearing holding without not featuring showing including "
    "contains like"
) | (COPULAS | MARKS)
# Singular names that are also adjectives: read only where nothing that could be a noun follows.
ADJECTIVES_TOO = _words("orange remote pickup semi ski")
# "a dog house": the house is what is there.
HEADS = _words(
    "house station stop track tracks platform shop store box cage feeder lane path park lot "
    "food show stand shelf shelves case cloth lamp juice pie bread lift trail bell costume "
    "mask logo shirt print pattern picture painting poster statue sculpture figurine drawing "
    "sticker tattoo ride race toy tag tail door window wheel seat owner collar leash saddle "
    "field court game games tree trees sheet sheets frame spread linen linens paper lid tank "
    "booth call number cushion cushions lane dock ramp trailer faucet"
)
NOT_REAL = _words("toy stuffed plush fake model ceramic porcelain inflatable cartoon origami lego")
DEPICTIONS = _words(
    "statue sculpture painting drawing figurine poster cartoon model toy illustration sketch "
    "mural silhouette shadow reflection"
)
NEGATIONS = _words("without not no lacks lacking")
PREDICATE_ADVERBS = _words("very mostly also all both entirely bright dark light")
# Each relation and the one that says the same from the other side.
_INVERSES = {
    "left of": "right of",
    "above": "below",
    "in front of": "behind",
    "on": "under",
    "inside": "contains",
    "next to": "next to",
    "beside": "beside",
    "near": "near",
}
INVERSES = _INVERSES | {
    inverse: relation
    for relation, inverse in reversed(_INVERSES.items())
    if inverse not in _INVERSES
}
