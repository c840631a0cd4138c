"""How a caption set is derived from captions that are stored: one rule, with its dose."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from curate.base.settings import Settings

Rule = Literal[
    "pad",
    "shuffle",
    "wrong_attributes",
    "drop_clauses",
    "random_length",
    "tags",
    "json",
    "prose",
]


class Derivation(Settings):
    """One derived caption set, as a study or `caplab derive` declares it."""

    of: str = Field(..., description="Kind of the captions that it is made from")
    rule: Rule = Field(
        ...,
        description="pad: repeated to the length of `like`; shuffle: each picture gets another's; "
        "wrong_attributes, drop_clauses: a share `dose` of attribute words exchanged, of clauses "
        "dropped; random_length: several cuts, of which each draw takes one; tags: a list of "
        "tags; json, prose: the structured form, and the same rendered as prose",
    )
    dose: float = Field(0.0, ge=0, le=1, description="Share that is changed; nested in larger ones")
    like: str | None = Field(None, description="pad: the kind whose length in words is matched")
    cuts: int = Field(4, gt=1, description="random_length: how many lengths there are")
    source: str | None = Field(
        None, description="Who wrote `of`, where several captioners wrote that kind"
    )
