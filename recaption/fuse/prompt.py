"""How a language model is asked to merge captions. The wording is ours.

CapsFusion (2310.20550) merges a web text, which knows names, with a synthetic caption, which knows
what is seen; later work has several captioners as witnesses. A merger that adds what no caption
says is worse than any of them, so the prompt forbids it and gates look for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from curate.base.errors import ConfigError
from recaption.prompts.template import Lengths, PromptTemplate
from recaption.prompts.templates import load_templates

MOST_CHARACTERS = 2000
"""Of each caption that are shown."""


def variable(place: int) -> str:
    """The prompt's variable for the caption at `place`, from 0."""
    return f"caption_{place + 1}"


def fuse_template(name: str, kinds: Sequence[str], prompts: str) -> PromptTemplate:
    """What is asked: the prompt of that name in the user's file, or the built-in one.

    Raises:
        ConfigError: the file is wrong, or its prompt leaves a caption out.
    """
    columns = tuple(variable(place) for place in range(len(kinds)))
    if prompts:
        templates = load_templates(prompts, columns=columns)
        if name in templates and not set(columns) <= set(templates[name].used):
            shown = ", ".join(f"{{{column}}}" for column in columns)
            raise ConfigError(f"The prompt {name!r} in {prompts} must show {shown}.")
        if name in templates:
            return replace(templates[name], most_characters=MOST_CHARACTERS, alt_hint="")
    shown = " ".join(f"Caption {n + 1}: {{{column}}}" for n, column in enumerate(columns))
    return PromptTemplate(
        name=name,
        version=1,
        text=(
            f"Here are {len(kinds)} captions of one image. Merge them into one paragraph that says "
            "every fact of theirs once: things with their number, colours and places, names and "
            "text word for word. Where they contradict each other, follow the one that is more "
            "precise, and leave out words about a web page or a camera file. Add nothing that "
            f"none of them says. Answer with the paragraph alone. {shown}"
        ),
        alt_hint="",
        columns=columns,
        lengths=Lengths(min_words=3, max_words=300, max_new_tokens=400),
        most_characters=MOST_CHARACTERS,
    )
