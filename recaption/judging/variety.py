"""How much captions differ from one another: words, openings, whole texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice, pairwise

OPENING_WORDS = 3
MATTR_WINDOW = 500


def words_of(text: str) -> list[str]:
    """Lower-case words: what stands between spaces, without punctuation around it."""
    stripped = (word.strip(".,;:!?\"'()[]{}…“”‘’«»") for word in text.lower().split())
    return [word for word in stripped if word]


def distinct(words: Sequence[Sequence[str]], limit: int | None = None) -> tuple[float, float]:
    """Different words and word pairs among all, 0..1 (distinct-1 and -2, Li et al. 2016).

    Both fall as more words are read, so sets are compared over equally many: `limit` words from
    the first texts. nan without a word or pair. Cost: one pass, memory of the different pairs.
    """
    single: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    left = limit if limit is not None else sum(map(len, words))
    for text in words:
        read = text[:left]
        single.update(read)
        pairs.update(pairwise(read))
        left -= len(read)
        if left <= 0:
            break
    return (
        len(single) / single.total() if single else float("nan"),
        len(pairs) / pairs.total() if pairs else float("nan"),
    )


def mattr(words: Sequence[Sequence[str]], window: int = MATTR_WINDOW) -> float:
    """Mean share of different words in a window that moves over the texts one after another.

    Moving-average type-token ratio (Covington and McFall 2010), 0..1: unlike distinct-1 it does not
    depend on how much text there is. A window spans several captions, so it falls both where a
    caption repeats itself and where captions are worded alike. nan below `window` words.
    """
    flat = [word for text in words for word in text]
    if len(flat) < window:
        return float("nan")
    counts = Counter(flat[:window])
    total = len(counts)
    for leaving, coming in zip(flat, islice(flat, window, None), strict=False):
        counts[coming] += 1
        counts[leaving] -= 1
        if not counts[leaving]:
            del counts[leaving]
        total += len(counts)
    return total / (len(flat) - window + 1) / window


def openings(words: Sequence[Sequence[str]], count: int = 5) -> dict[str, float]:
    """The commonest first three words -> share of the texts that begin with them."""
    found = Counter(" ".join(text[:OPENING_WORDS]) for text in words)
    total = max(found.total(), 1)
    return {opening: number / total for opening, number in found.most_common(count)}


def distinct_texts(texts: Sequence[str]) -> float:
    """Different texts among all, 0..1; case and spaces do not tell two apart."""
    if not texts:
        return float("nan")
    return len({" ".join(text.lower().split()) for text in texts}) / len(texts)
