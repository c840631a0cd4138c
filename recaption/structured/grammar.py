"""The small words by which plain captions are read: what opens a noun phrase and what ends it."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMBERS = _words("one two three four five six seven eight nine ten eleven twelve")
DETERMINERS = NUMBERS | _words(
    "a an the this that these those no some several many few both all each every another any other "
    "its his her their my our your"
)
"""Words that stand where an article would."""
PREPOSITIONS = _words(
    "in on at by of with to from for into onto under over above below behind beside near next "
    "inside outside between among against along across around through beneath underneath"
)
PRONOUNS = _words("it they them he she we you i which who whose where when what that there here")
VERBS = _words(
    "is are was were be been being has have had having do does did can could may might will would "
    "seem seems appear appears look looks"
)
JOINING = _words("and or but while as like than then not very quite also so such too just either")
NO_CONTENT = DETERMINERS - NUMBERS | PREPOSITIONS | PRONOUNS | VERBS | JOINING
"""Words that are no content by themselves."""
FOREIGN = (
    _words("the a an")
    | (PREPOSITIONS | PRONOUNS | VERBS | JOINING) - _words("very quite")
    | (_words("wearing holding sitting standing"))
)
"""Words at which a noun phrase has ended: what they open, the grammar of clauses does not know."""
