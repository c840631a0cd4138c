"""Prompt templates: named, versioned, hashed, so that a caption says exactly what was asked.

The two built-in kinds follow DALL-E 3's two captioners (Betker et al. 2023, section 2.1): "short"
describes the main subject only; "descriptive" also its surroundings, the background, text in the
image, style and colours. The wording is ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from curate.errors import ConfigError
from curate.settings import refuse_unknown

_VARIABLE = re.compile(r"\{(\w+)\}")
_KIND_NAME = re.compile(r"[a-z][a-z0-9_]*")
# Variables that differ from row to row; all others are constants of the template.
ROW_VARIABLES = ("alt_text",)
# Alt texts of the web run to kilobytes; a hint needs its first words only.
MAX_ALT_CHARACTERS = 300

ALT_HINT = (
    'A web page shows this picture with the text "{alt_text}". Use it for names that you cannot '
    "see, and ignore what the picture contradicts."
)


@dataclass(frozen=True)
class PromptTemplate:
    """What a captioner is asked for one kind of caption.

    Attributes:
        name: the caption's kind, such as "short".
        version: raised whenever the wording changes on purpose.
        text: the user turn; `{name}` stands for a variable, `{alt_text}` for the row's alt text.
        system: the system turn; empty means none.
        alt_hint: sentence added behind the text where alt texts are shown and the row has one.
        variables: values of the constants in the text, such as {"language": "German"}.
    """

    name: str
    version: int
    text: str
    system: str = ""
    alt_hint: str = ALT_HINT
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _KIND_NAME.fullmatch(self.name) or self.name == "alt":
            raise ConfigError(
                f"{self.name!r} cannot be a caption kind; use lower-case letters, digits and _, "
                f"and another name than 'alt'."
            )
        known = {*self.variables, *ROW_VARIABLES}
        for part in (self.text, self.system, self.alt_hint):
            for variable in _VARIABLE.findall(part):
                if variable not in known:
                    raise ConfigError(
                        f"The prompt template {self.name!r} uses {{{variable}}}, which is none of "
                        f"its variables ({', '.join(sorted(known))})."
                    )

    @property
    def id(self) -> str:
        """Name and version, such as "short@1"."""
        return f"{self.name}@{self.version}"

    @property
    def sha256(self) -> str:
        """Hex sha256 of every word that can reach the captioner, apart from the alt text."""
        words = [self.text, self.system, self.alt_hint, dict(self.variables)]
        text = json.dumps(words, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def shows_alt_text(self, alt_text: str | None, show_alt_text: bool) -> bool:
        """Whether the prompt of a row with this alt text would contain it."""
        return bool(alt_text and alt_text.strip()) and (
            "{alt_text}" in self.text or (show_alt_text and bool(self.alt_hint))
        )

    def render(self, alt_texts: Sequence[str | None], show_alt_text: bool = False) -> list[str]:
        """The user turn of each row, in order.

        Args:
            alt_texts: one a row; None or blank adds no hint.
            show_alt_text: whether the hint is added where the row has an alt text.
        """
        plain = self._fill(self.text, "")
        if "{alt_text}" not in self.text and not show_alt_text:
            return [plain] * len(alt_texts)
        prompts = []
        for alt_text in alt_texts:
            alt = " ".join((alt_text or "").split())[:MAX_ALT_CHARACTERS]
            prompt = self._fill(self.text, alt)
            if alt and show_alt_text and self.alt_hint and "{alt_text}" not in self.text:
                prompt = f"{prompt} {self._fill(self.alt_hint, alt)}"
            prompts.append(prompt)
        return prompts

    def render_system(self) -> str:
        """The system turn, the same for every row."""
        return self._fill(self.system, "")

    def _fill(self, text: str, alt_text: str) -> str:
        # One pass, so braces inside an alt text are never read as variables.
        values = {**self.variables, "alt_text": alt_text}
        return _VARIABLE.sub(lambda found: values[found.group(1)], text)


SHORT = PromptTemplate(
    name="short",
    version=1,
    text="Name only the main subject of this image in one short sentence.",
)

DESCRIPTIVE = PromptTemplate(
    name="descriptive",
    version=1,
    text=(
        "Describe this image in one paragraph: the subject, its surroundings, the background, "
        "any text in it, its style and its colours. Begin with the subject and say only what can "
        "be seen."
    ),
)

BUILT_IN: Mapping[str, PromptTemplate] = {
    template.name: template for template in (SHORT, DESCRIPTIVE)
}


def _native(name: str, text: str) -> PromptTemplate:
    return PromptTemplate(name=name, version=1, text=text, alt_hint="")


# Models without a chat template read no instructions: each knows the texts it was trained with.
# BLIP and GIT caption a picture when they are given no text at all.
NATIVE: Mapping[str, Mapping[str, PromptTemplate]] = {
    "blip": {"short": _native("short", "")},
    "git": {"short": _native("short", "")},
    "florence2": {
        "short": _native("short", "<CAPTION>"),
        "descriptive": _native("descriptive", "<MORE_DETAILED_CAPTION>"),
    },
    "paligemma": {
        "short": _native("short", "<image>caption en\n"),
        "descriptive": _native("descriptive", "<image>describe en\n"),
    },
}


def templates_for(family: str, chat: bool, path: Path | str | None) -> dict[str, PromptTemplate]:
    """The templates that a captioner understands, by kind.

    Args:
        family: `model_type` of its architecture.
        chat: whether it has a chat template; only then it reads instructions.
        path: YAML file with the user's templates.

    Raises:
        ConfigError: as `load_templates`; or a model without a chat template whose texts are
            unknown, or that is given templates of the user's.
    """
    if chat:
        return load_templates(path)
    if family not in NATIVE:
        raise ConfigError(
            f"The captioner has no chat template, and how to ask a {family or 'nameless'} model "
            f"is unknown (known without one: {', '.join(sorted(NATIVE))})."
        )
    if path:
        raise ConfigError(
            f"A {family} captioner has no chat template and reads no instructions; leave prompts "
            f"empty."
        )
    return dict(NATIVE[family])


def load_templates(path: Path | str | None = None) -> dict[str, PromptTemplate]:
    """The built-in templates and those of a YAML file, by kind.

    The file holds one block a kind, `KIND: {version: 1, text: ..., system: ..., alt_hint: ...,
    variables: {...}}`; only `text` is needed. A kind of the same name replaces the built-in one.

    Raises:
        ConfigError: the file is missing, is not such YAML, or a template is wrong.
    """
    templates = dict(BUILT_IN)
    if not path:
        return templates
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The prompt file {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The prompt file {path} is not valid YAML ({error}).") from error
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        raise ConfigError(f"The prompt file {path} must hold `kind:` blocks with a `text:` each.")
    for kind, block in loaded.items():
        templates[str(kind)] = _template(str(kind), block, path)
    return templates


def _template(kind: str, block: Mapping[str, object], path: Path | str) -> PromptTemplate:
    valid = ["version", "text", "system", "alt_hint", "variables"]
    refuse_unknown(block, valid, f"The prompt {kind!r} in {path}")
    variables = block.get("variables", {})
    version = block.get("version", 1)
    given = {name: block.get(name, "") for name in ("text", "system")}
    given["alt_hint"] = block.get("alt_hint", ALT_HINT)
    texts = {name: text for name, text in given.items() if isinstance(text, str)}
    if not isinstance(variables, dict) or not isinstance(version, int):
        raise ConfigError(
            f"The prompt {kind!r} in {path} needs a whole number as version and `name: value` "
            f"lines as variables."
        )
    if len(texts) < len(given):
        raise ConfigError(f"The texts of the prompt {kind!r} in {path} must be strings.")
    if not texts["text"].strip():
        raise ConfigError(f"The prompt {kind!r} in {path} has no text.")
    return PromptTemplate(
        name=kind,
        version=version,
        variables={str(name): str(value) for name, value in variables.items()},
        **texts,
    )
