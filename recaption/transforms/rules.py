"""The rules as pure functions: columns in, columns out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recaption.structured.prose import from_caption, prose
from recaption.structured.schema import Unread, serialize
from recaption.transforms.attributes import Usage, exchange
from recaption.transforms.clauses import cuts, drop
from recaption.transforms.derivation import Derivation
from recaption.transforms.draws import caption_numbers
from recaption.transforms.shuffle import donors
from recaption.transforms.tags import tags

Text = str | Unread
"""A derived caption, or why there is none."""

NO_LIKE = Unread("no_like_caption")
NO_OTHER = Unread("no_other_text", "more than half of the captions are one text")


@dataclass(frozen=True)
class Columns:
    """Accepted captions of the kind `of`, as columns of equal length N.

    Attributes:
        keys, indices: of which picture, and which of its samples.
        texts: the captions.
        like: key -> the same picture's caption of the kind `like`.
        said: how often the whole set says each attribute word, by class.
    """

    keys: Sequence[str]
    indices: Sequence[int]
    texts: Sequence[str]
    like: Mapping[str, str] = field(default_factory=dict)
    said: Usage = field(default_factory=dict)


@dataclass(frozen=True)
class Derived:
    """Derived captions as columns of equal length.

    Attributes:
        rows: (M,) the row of `Columns` that each is of, ascending; one of a caption
            that was cut to several lengths stands several times.
        indices: (M,) the sample index of each.
        texts: (M,) each caption, or why there is none.
        changed, changeable: words or clauses that a dosed rule changed, and could have changed;
            empty for the others.
    """

    rows: Sequence[int]
    indices: Sequence[int]
    texts: Sequence[Text]
    changed: Sequence[int] = ()
    changeable: Sequence[int] = ()


def apply(derivation: Derivation, columns: Columns) -> Derived:
    """Derive from each caption. Shuffling exchanges them among the pictures of these columns."""
    rule, texts = derivation.rule, columns.texts
    rows = list(range(len(texts)))
    if rule in ("wrong_attributes", "drop_clauses"):
        return _dosed(derivation, columns)
    if rule == "random_length":
        count = derivation.cuts
        cut = [piece for text in texts for piece in cuts(text, count)]
        indices = [index * count + place for index in columns.indices for place in range(count)]
        return Derived([row for row in rows for _ in range(count)], indices, cut)
    made: list[Text]
    if rule == "pad":
        made = [pad(t, columns.like.get(k)) for k, t in zip(columns.keys, texts, strict=True)]
    elif rule == "shuffle":
        given = donors(columns.keys, texts, columns.indices)
        made = [NO_OTHER] * len(texts) if given is None else [texts[row] for row in given.tolist()]
    elif rule == "tags":
        made = [tags(text) for text in texts]
    else:
        render = serialize if rule == "json" else prose
        read = [from_caption(text) for text in texts]
        made = [one if isinstance(one, Unread) else render(one) for one in read]
    return Derived(rows, columns.indices, made)


def pad(text: str, like: str | None) -> Text:
    """`text` repeated and cut at a word, to as many words as `like`; a longer one stays whole."""
    if like is None:
        return NO_LIKE
    words, wanted = text.split(), len(like.split())
    if len(words) >= wanted:
        return text
    return " ".join((words * (wanted // len(words) + 1))[:wanted])


def _dosed(derivation: Derivation, columns: Columns) -> Derived:
    numbers = caption_numbers(columns.keys, columns.indices)
    made = [
        drop(text, number, derivation.dose)
        if derivation.rule == "drop_clauses"
        else exchange(text, number, derivation.dose, columns.said)
        for text, number in zip(columns.texts, numbers, strict=True)
    ]
    return Derived(
        range(len(made)),
        columns.indices,
        [text for text, _, _ in made],
        [changed for _, changed, _ in made],
        [count for _, _, count in made],
    )
