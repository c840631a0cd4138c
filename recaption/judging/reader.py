"""Reads a free caption: which known things it mentions, how many, how they are, how related.

A reader of rules, no model: the longest known phrase wins ("hot dog" is no dog), the words before a
noun up to its article are its attributes, a number there is its count, and words between two
mentions that end in a known relation relate them. What is not asserted is not read: negated things
("no dog"), things that only qualify another ("dog house", "baby elephant"), and pictures or models
of things ("a toy car", "a statue of a horse"): whether annotators drew a box there cannot be known.
docs/captions.md lists what the rules cannot see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from recaption.judging.reader_words import (
    ADJECTIVES_TOO,
    BREAKS,
    COPULAS,
    DEPICTIONS,
    DETERMINERS,
    HEADS,
    INVERSES,
    MARKS,
    NEGATIONS,
    NOT_REAL,
    NUMBERS,
    PREDICATE_ADVERBS,
)

_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[.,;:!?()\n]")

_LEAD_LIMIT = 5
_PHRASE_WORDS = 6


@dataclass(frozen=True)
class Mention:
    """A thing that a caption asserts.

    Attributes:
        name: of its class.
        number: how many, where a number is said: "two dogs" 2, "a dog" and "dogs" None.
        attributes: known attributes bound to it.
    """

    name: str
    number: int | None = None
    attributes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Reading:
    """What a caption asserts of known things, in its order; relations as (name, relation, name)."""

    mentions: tuple[Mention, ...] = ()
    relations: frozenset[tuple[str, str, str]] = frozenset()


@dataclass(frozen=True)
class _Span:
    name: str
    many: bool
    phrase: int  # first token of the noun phrase
    start: int  # of the noun
    stop: int
    asserted: bool


class CaptionReader:
    """Reads captions for one vocabulary. Cost: linear in words; some 10,000 short ones a second."""

    def __init__(
        self,
        phrases: Mapping[str, tuple[str, bool]],
        attributes: Iterable[str] = (),
        relations: Iterable[str] = (),
    ) -> None:
        """Take a vocabulary.

        Args:
            phrases: as object_names.phrases gives them.
            attributes, relations: lower-case phrases to look for.
        """
        self._phrases = {tuple(phrase.split()): found for phrase, found in phrases.items()}
        self._attributes = {tuple(attribute.split()): attribute for attribute in attributes}
        known = set(relations)
        known |= {INVERSES[relation] for relation in known if relation in INVERSES}
        self._relations = sorted(
            ((tuple(relation.split()), relation) for relation in known),
            key=lambda pair: (-len(pair[0]), pair[1]),
        )
        self._longest = max((len(phrase) for phrase in self._phrases), default=0)
        self._longest_attribute = max((len(phrase) for phrase in self._attributes), default=0)

    def read(self, text: str) -> Reading:
        """What `text` asserts."""
        tokens = [token.replace("’", "'") for token in _TOKEN.findall(text.lower())]
        spans = self._spans(tokens)
        mentions = tuple(
            Mention(span.name, self._number(tokens, span), self._attributes_of(tokens, span))
            for span in spans
            if span.asserted
        )
        return Reading(mentions, frozenset(self._related(tokens, spans)))

    # ---- nouns ----------------------------------------------------------------------------------

    def _spans(self, tokens: list[str]) -> list[_Span]:
        found: list[tuple[str, bool, int, int]] = []
        place = 0
        while place < len(tokens):
            for length in range(min(self._longest, len(tokens) - place), 0, -1):
                known = self._phrases.get(tuple(tokens[place : place + length]))
                if known is not None:
                    if known[0]:
                        found.append((*known, place, place + length))
                    place += length
                    break
            else:
                place += 1
        spans: list[_Span] = []
        for index, (name, many, start, stop) in enumerate(found):
            after = tokens[stop] if stop < len(tokens) else "."
            before_stop = found[index - 1][3] if index else 0
            phrase = self._phrase_start(tokens, start, before_stop)
            next_is_noun = index + 1 < len(found) and found[index + 1][2] == stop
            qualifies = not many and (next_is_noun or after in HEADS)
            adjective = (
                tokens[start] in ADJECTIVES_TOO
                and stop == start + 1
                and (after not in BREAKS or tokens[max(start - 1, 0)] in COPULAS)
            )
            asserted = not (
                qualifies
                or adjective
                or self._is_depicted(tokens, phrase, start)
                or self._is_negated(tokens, phrase, spans)
            )
            spans.append(_Span(name, many, phrase, start, stop, asserted))
        return spans

    def _phrase_start(self, tokens: list[str], start: int, least: int) -> int:
        """Where the noun phrase that ends in the noun at `start` begins."""
        place = start
        while place > max(least, start - _PHRASE_WORDS):
            token = tokens[place - 1]
            joins = token in ("and", ",") and self._ends_attribute(tokens, place - 1)
            if token in BREAKS and not (joins and self._starts_attribute(tokens, place)):
                break
            place -= 1
            if token in DETERMINERS:
                break
        return place

    def _ends_attribute(self, tokens: list[str], stop: int) -> bool:
        return any(
            tuple(tokens[max(stop - length, 0) : stop]) in self._attributes
            for length in range(1, self._longest_attribute + 1)
        )

    def _starts_attribute(self, tokens: list[str], start: int) -> bool:
        return any(
            tuple(tokens[start : start + length]) in self._attributes
            for length in range(1, self._longest_attribute + 1)
        )

    def _is_depicted(self, tokens: list[str], phrase: int, start: int) -> bool:
        if NOT_REAL & set(tokens[phrase:start]):
            return True
        return phrase >= 2 and tokens[phrase - 1] == "of" and tokens[phrase - 2] in DEPICTIONS

    def _is_negated(self, tokens: list[str], phrase: int, before: list[_Span]) -> bool:
        if phrase < len(tokens) and tokens[phrase] == "no":
            return True
        previous = tokens[phrase - 1] if phrase else ""
        if previous in NEGATIONS:
            return True
        # "without cars or people": what denies the first denies the second.
        chained = previous == "or" and before and before[-1].stop == phrase - 1
        return bool(chained) and self._is_negated(tokens, before[-1].phrase, before[:-1])

    # ---- what is said of them -------------------------------------------------------------------

    def _number(self, tokens: list[str], span: _Span) -> int | None:
        words = tokens[max(span.phrase, 0) : span.start]
        number = None
        for word in words:
            if word in NUMBERS:
                number = NUMBERS[word]
            elif word.isdecimal() and len(word) <= 3:
                number = int(word)
        before = tokens[max(span.phrase - 2, 0) : span.phrase]
        if number is None and before == ["pair", "of"]:
            number = 2
        # "a 2 meter tall dog" is no number of dogs.
        if number is not None and number != 1 and not span.many:
            return None
        return number

    def _attributes_of(self, tokens: list[str], span: _Span) -> frozenset[str]:
        found = set(self._known_attributes(tokens, span.phrase, span.start))
        place = span.stop
        if place < len(tokens) and tokens[place] in ("that", "which", "who"):
            place += 1
        if place < len(tokens) and tokens[place] in COPULAS:
            found |= self._predicate(tokens, place + 1)
        return frozenset(found)

    def _known_attributes(self, tokens: list[str], start: int, stop: int) -> list[str]:
        found, place = [], start
        while place < stop:
            for length in range(min(self._longest_attribute, stop - place), 0, -1):
                known = self._attributes.get(tuple(tokens[place : place + length]))
                if known is not None:
                    found.append(known)
                    place += length
                    break
            else:
                place += 1
        return found

    def _predicate(self, tokens: list[str], place: int) -> set[str]:
        """Attributes of "... is black and very small", up to the first word that is none."""
        found: set[str] = set()
        while place < len(tokens):
            for length in range(min(self._longest_attribute, len(tokens) - place), 0, -1):
                known = self._attributes.get(tuple(tokens[place : place + length]))
                if known is not None:
                    # "is brown bread" names another thing's attribute.
                    after = tokens[place + length] if place + length < len(tokens) else "."
                    if after not in BREAKS:
                        return found
                    found.add(known)
                    place += length
                    break
            else:
                if tokens[place] in PREDICATE_ADVERBS or (found and tokens[place] in ("and", ",")):
                    place += 1
                else:
                    return found
        return found

    def _related(self, tokens: list[str], spans: list[_Span]) -> list[tuple[str, str, str]]:
        found = []
        for one, other in pairwise(spans):
            between = tuple(tokens[one.stop : other.phrase])
            if not (one.asserted and other.asserted and between):
                continue
            for words, relation in self._relations:
                if between[-len(words) :] == words:
                    lead = between[: -len(words)]
                    broken = MARKS & set(lead) or NEGATIONS & set(lead)
                    if len(lead) <= _LEAD_LIMIT and not broken:
                        found.append((one.name, relation, other.name))
                    break
        return found
