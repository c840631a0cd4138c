"""A caption as a list of tags, by rule: runs of content words, or a structured one's objects."""

from __future__ import annotations

import re

from recaption.structured.grammar import NO_CONTENT
from recaption.structured.schema import Unread, parse

_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*|[^\w\s]")


def tags(text: str) -> str | Unread:
    """ "small red ring, top-left, striped white background" of a caption: runs of content words.

    Lower case, in the caption's order, each once. A structured caption gives exactly its objects,
    attributes before names. Words are not parsed: a verb stays with what it stands beside.
    """
    if text.lstrip().startswith("{"):
        caption = parse(text.strip())
        if isinstance(caption, Unread):
            return caption
        found = [" ".join([*one.get("attributes", ()), one["name"]]) for one in caption["objects"]]
        return ", ".join(dict.fromkeys(found))
    runs: list[list[str]] = [[]]
    for word in map(str.lower, _WORD.findall(text)):
        if word in NO_CONTENT or not word[0].isalnum():
            runs.append([])
        else:
            runs[-1].append(word)
    found = [" ".join(run) for run in runs if run]
    return ", ".join(dict.fromkeys(found)) if found else Unread("no_content_word")
