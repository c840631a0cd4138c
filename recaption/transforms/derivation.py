"""How a caption set is derived from captions that are stored: one rule, with its dose."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from curate.base.errors import ConfigError
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

DOSED = ("wrong_attributes", "drop_clauses")
"""Rules that change a share of a caption."""


class Derivation(Settings):
    """One derived caption set, as a study or `caplab derive` declares it."""

    GROUPS: ClassVar[dict[str, str]] = {"Rule": "of"}

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

    @model_validator(mode="after")
    def _only_what_the_rule_reads(self) -> Self:
        if (self.rule in DOSED) != (self.dose > 0):
            raise ConfigError(
                f"The rule {self.rule} needs a dose above 0, such as 0.2."
                if self.rule in DOSED
                else f"The rule {self.rule} has no dose; {' and '.join(DOSED)} have one."
            )
        if (self.rule == "pad") != (self.like is not None):
            raise ConfigError(
                "The rule pad needs `like`, the kind whose length is matched."
                if self.rule == "pad"
                else f"The rule {self.rule} matches no length; leave `like` out."
            )
        own_cuts = self.cuts != type(self).model_fields["cuts"].default
        if self.rule != "random_length" and own_cuts:
            raise ConfigError(f"The rule {self.rule} makes no cuts; leave `cuts` out.")
        return self

    def decisive(self) -> dict[str, object]:
        """The settings that decide the captions, whoever wrote those that they are made from."""
        own = {"pad": "like", "random_length": "cuts"} | dict.fromkeys(DOSED, "dose")
        names = ["of", "rule", *([own[self.rule]] if self.rule in own else [])]
        return {name: value for name, value in self.resolved().items() if name in names}
