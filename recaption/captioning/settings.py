"""Settings of `caplab recaption`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from curate.base.errors import ConfigError
from curate.base.kinds import ALT, HUMAN
from curate.base.settings import OPERATIONAL, nearest
from recaption.engines.settings import EngineSettings, ShownSettings
from recaption.gates.registry import DEFAULT_REJECTS, GATES
from recaption.measure.settings import MeasureSettings
from recaption.prompts.template import STRUCTURED, Lengths

MAX_NEW_TOKENS: Mapping[str, int] = {"short": 40, "descriptive": 200}
MIN_WORDS: Mapping[str, int] = {"short": 2, "descriptive": 5}
# Not above: those defaults are part of the name of every source.
STRUCTURED_MAX_NEW_TOKENS = 500
GRADED, GRADES = "graded", ("tag", "short", "medium", "long")
FUSED = "fused"
# For kinds of the user's own.
OTHER_MAX_NEW_TOKENS = 200
OTHER_MIN_WORDS = 1


class RecaptionSettings(MeasureSettings, ShownSettings, EngineSettings):
    """Which captions to write, with which captioner, and which of them to accept."""

    GROUPS: ClassVar[dict[str, str]] = {
        "Captions": "selection",
        "Sampling": "samples_per_image",
        "Gates": "min_words",
        "Running": "seed",
    }
    EXPERT: ClassVar[str] = (
        "top_k repetition_penalty retry_temperature checkpoint_rows stop_after_unaccepted"
    )

    selection: str = Field(
        "", description="Selection whose samples are captioned; empty takes every stored sample."
    )
    fuse: tuple[str, ...] = Field(
        (),
        description="Merge these stored kinds of captions into one of the kind fused, by a "
        "language model that sees no picture; KIND:SOURCE where several wrote a kind.",
    )
    only_missing: bool = Field(
        False,
        description="Ask a kind only for pictures without an accepted caption of it by anybody, "
        "people and imports included.",
    )
    kinds: tuple[str, ...] = Field(
        ("short", "descriptive"),
        min_length=1,
        description="Kinds of caption: short, descriptive, structured (JSON), tag, medium, long, "
        "or names in the prompt file; graded is tag,short,medium,long.",
    )
    prompts: str = Field("", description="YAML file with prompt templates of your own, by kind.")
    prompt_variables: dict[str, str] = Field(
        {},
        description="Values of the prompts' variables, over those in the prompt file, such as "
        "language=German; the built-in prompts have language and tags.",
    )
    prompt_columns: dict[str, str] = Field(
        {},
        description="Prompt variables that differ from sample to sample: NAME -> SQL over one "
        "sample, as in `caplab select --where`, such as tags=imported_tags.",
    )
    show_alt_text: bool = Field(
        False, description="Show the captioner the alt text as a hint; recorded for each caption."
    )
    samples_per_image: int = Field(
        1, ge=1, le=100, description="Captions of each kind for each image."
    )
    temperature: float = Field(0.0, ge=0.0, le=5.0, description="Of sampling; 0 is greedy.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Nucleus sampling; 1 keeps all words.")
    top_k: int = Field(0, ge=0, description="Sample from the k likeliest words; 0 keeps all.")
    repetition_penalty: float = Field(
        1.0, ge=1.0, le=2.0, description="Above 1 it also harms texts that repeat with good reason."
    )
    max_new_tokens: dict[str, int] = Field(
        default_factory=lambda: dict(MAX_NEW_TOKENS),
        description=f"Output tokens at most, by kind; structured {STRUCTURED_MAX_NEW_TOKENS}, tag "
        f"100, medium 140, long 450, other kinds {OTHER_MAX_NEW_TOKENS}.",
    )
    min_words: dict[str, int] = Field(
        default_factory=lambda: dict(MIN_WORDS),
        description=f"Fewer words are too short, by kind; tag 3, medium 15, long 50, other kinds "
        f"{OTHER_MIN_WORDS}.",
    )
    max_words: dict[str, int] = Field(
        {},
        description="More words are too long, by kind, and reject; tag 60, medium 90, long 300, "
        "other kinds have no limit.",
    )
    reject: tuple[str, ...] = Field(
        DEFAULT_REJECTS, description="Gates that reject a caption; all others only mark it."
    )
    gates: tuple[str, ...] = Field(
        (), description="Further gates of your own: my_package.module:GATE, or an entry point."
    )
    retries: int = Field(
        1, ge=0, le=10, description="Further tries where a gate says that another may help."
    )
    retry_temperature: float = Field(
        0.7, gt=0.0, le=5.0, description="Temperature of a retry, if above `temperature`."
    )
    seed: int = Field(0, ge=0, description="Of every draw; a caption's own seed derives from it.")
    checkpoint_rows: int = Field(
        1024,
        ge=1,
        description="Captions written between two checkpoints inside a shard.",
        json_schema_extra=OPERATIONAL,
    )
    stop_after_unaccepted: int = Field(
        512,
        ge=0,
        description="End the run when so many captions in a row all failed or were rejected; those "
        "that a filter withheld or whose picture is broken do not count; 0 never ends it.",
        json_schema_extra=OPERATIONAL,
    )
    stuck_after: float = Field(
        60.0,
        ge=0,
        description="Seconds without a move after which a captioner that runs here counts as hung, "
        "or ten times its slowest batch if that is longer; it is ended and started anew, and the "
        "picture that it was at fails if it hangs again. 0 waits for ever. A server's limits are "
        "`timeout` and `patience`.",
        json_schema_extra=OPERATIONAL,
    )
    retry_failed: bool = Field(
        False,
        description="Caption again the rows that failed (not those that a gate rejected).",
        json_schema_extra=OPERATIONAL,
    )

    @field_validator("max_new_tokens", mode="before")
    @classmethod
    def _with_default_limits(cls, given: Any) -> Any:
        return {**MAX_NEW_TOKENS, **given} if isinstance(given, dict) else given

    @field_validator("min_words", mode="before")
    @classmethod
    def _with_default_words(cls, given: Any) -> Any:
        return {**MIN_WORDS, **given} if isinstance(given, dict) else given

    @field_validator("prompt_variables", "prompt_columns", mode="before")
    @classmethod
    def _texts(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        for name, value in given.items():
            if isinstance(value, bool):
                raise ValueError(f"{name} was read as true or false; put its value in quotes")
        return {name: str(value) for name, value in given.items()}

    @field_validator("max_new_tokens", "max_words")
    @classmethod
    def _positive(cls, limits: dict[str, int]) -> dict[str, int]:
        if any(limit < 1 for limit in limits.values()):
            raise ValueError("each limit must be 1 or more")
        return limits

    @field_validator("kinds", mode="before")
    @classmethod
    def _in_grades(cls, given: Any) -> Any:
        if not isinstance(given, (list, tuple)):
            return given
        return [kind for name in given for kind in (GRADES if name == GRADED else (name,))]

    @field_validator("kinds")
    @classmethod
    def _distinct(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(kinds)) != len(kinds):
            raise ValueError("a kind stands there twice")
        if ALT in kinds:
            raise ValueError("alt texts are not captioned; they are read from the dataset")
        if HUMAN in kinds:
            raise ValueError("people write these; `caplab import-captions` takes them in")
        return kinds

    @field_validator("reject")
    @classmethod
    def _known_gates(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in GATES:
                raise ValueError(f"there is no gate {name!r}; {nearest(name, list(GATES))}")
        return names

    @model_validator(mode="before")
    @classmethod
    def _fused_is_a_kind(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("fuse") and "kinds" not in given:
            return {**given, "kinds": (FUSED,)}
        return given

    @model_validator(mode="after")
    def _one_from_several(self) -> Self:
        if self.fuse and (len(set(self.fuse)) < 2 or len(self.kinds) > 1):
            raise ConfigError(
                "fuse merges two or more kinds into one; name it with kinds if it is not fused."
            )
        return self

    @model_validator(mode="after")
    def _beams_are_coca_s(self) -> Self:
        if self.beams > 1 and self.engine not in ("auto", "coca"):
            raise ConfigError(f"engine = {self.engine!r} has no beams; only the coca engine has.")
        if self.beams > 1 and self.temperature > 0:
            raise ConfigError("beams above 1 search without chance; leave temperature at 0.")
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> Self:
        if self.samples_per_image > 1 and self.temperature == 0.0:
            raise ConfigError(
                "samples_per_image above 1 needs a temperature above 0: greedy captions of one "
                "image are all the same."
            )
        return self

    def lengths_of(self, kind: str, usual: Lengths | None = None) -> Lengths:
        """How long captions of `kind` may be; 0 words at most is no limit.

        Args:
            usual: by its prompt, where no setting says otherwise.
        """
        tokens = STRUCTURED_MAX_NEW_TOKENS if kind == STRUCTURED else OTHER_MAX_NEW_TOKENS
        usual = usual or Lengths(OTHER_MIN_WORDS, 0, tokens)
        return Lengths(
            self.min_words.get(kind, usual.min_words),
            self.max_words.get(kind, usual.max_words),
            self.max_new_tokens.get(kind, usual.max_new_tokens),
        )
