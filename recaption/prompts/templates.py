"""Prompt templates: named, versioned, hashed, so that a caption says exactly what was asked.

The two built-in kinds follow DALL-E 3's two captioners (Betker et al. 2023, section 2.1): "short"
describes the main subject only; "descriptive" also its surroundings, the background, text in the
image, style and colours. The wording is ours.

Beside them stand the four grades of length that datasets ship side by side (GPIC's caption types):
"tag", "short", "medium" and "long", together by the name "graded".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from curate.base.errors import ConfigError
from curate.base.settings import nearest, refuse_unknown
from recaption.prompts.template import ALT_HINT, LANGUAGE, STRUCTURED, Lengths, PromptTemplate

__all__ = [
    "BUILT_IN",
    "DESCRIPTIVE",
    "JSON",
    "LATER",
    "SHORT",
    "PromptTemplate",
    "load_templates",
    "templates_for",
]

TAGS = "tags"
_HINTS = ("Tags that may apply: {tags}.", "Answer in {language}.")
_NO_VALUES = {TAGS: "", LANGUAGE: ""}

SHORT = PromptTemplate(
    name="short",
    version=1,
    text="Name only the main subject of this image in one short sentence.",
    hints=_HINTS,
    variables=_NO_VALUES,
)

DESCRIPTIVE = PromptTemplate(
    name="descriptive",
    version=1,
    text=(
        "Describe this image in one paragraph: the subject, its surroundings, the background, "
        "any text in it, its style and its colours. Begin with the subject and say only what can "
        "be seen."
    ),
    hints=_HINTS,
    variables=_NO_VALUES,
)

JSON = PromptTemplate(
    name=STRUCTURED,
    version=1,
    text=(
        "List what this image shows as one JSON object, and say nothing else. Its form is "
        '{"summary": "...", "objects": [{"name": "...", "attributes": ["..."], "place": "..."}], '
        '"background": "...", "style": "...", "text": ["..."]}. The summary is one sentence. An '
        "object has a name of one or two words, attributes of one word each, such as its size, "
        "colour and material, and its place in the image, such as top-left; several that are alike "
        "are one entry, with their number as an attribute. The background and the style take a few "
        "words. The text is what is written in the image, word for word. Leave out every key that "
        "does not apply, and say only what can be seen."
    ),
    hints=_HINTS,
    variables=_NO_VALUES,
)

TAG = PromptTemplate(
    name="tag",
    version=1,
    text=(
        "List five to fifteen tags for this image, separated by commas, the most important first: "
        "what it shows, how many, colours and materials, the setting, the style. Each tag has one "
        "to three words. Write the tags alone, on one line."
    ),
    hints=_HINTS,
    variables=_NO_VALUES,
    lengths=Lengths(min_words=3, max_words=60, max_new_tokens=100),
)

MEDIUM = PromptTemplate(
    name="medium",
    version=1,
    text=(
        "Describe this image in two or three sentences, about forty words: the subject with what "
        "it does and how it looks, and where it is. Begin with the subject and say only what can "
        "be seen."
    ),
    hints=_HINTS,
    variables=_NO_VALUES,
    lengths=Lengths(min_words=15, max_words=90, max_new_tokens=140),
)

LONG = PromptTemplate(
    name="long",
    version=1,
    text=(
        "Describe this image in one paragraph of about one hundred and fifty words, so that a "
        "painter could paint it without having seen it: every thing with its number, colours, "
        "materials and place, what stands in front and behind, any text word for word, the light, "
        "the viewpoint and the style. Begin with the subject and say only what can be seen."
    ),
    hints=_HINTS,
    variables=_NO_VALUES,
    lengths=Lengths(min_words=50, max_words=300, max_new_tokens=450),
)

BUILT_IN: Mapping[str, PromptTemplate] = {
    template.name: template for template in (SHORT, DESCRIPTIVE, JSON, TAG, MEDIUM, LONG)
}
LATER = (JSON, TAG, MEDIUM, LONG)
"""Those that came after sources had been named; unchanged, they are no part of a source's name."""


def _native(name: str, text: str) -> PromptTemplate:
    return PromptTemplate(name=name, version=1, text=text, alt_hint="")


# Models without a chat template read no instructions: each knows the texts it was trained with.
# BLIP, CoCa and GIT caption a picture when they are given no text at all.
NATIVE: Mapping[str, Mapping[str, PromptTemplate]] = {
    "blip": {"short": _native("short", "")},
    "coca": {"short": _native("short", "")},
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


def templates_for(
    family: str,
    chat: bool,
    path: Path | str | None,
    constants: Mapping[str, str] | None = None,
    columns: Iterable[str] = (),
) -> dict[str, PromptTemplate]:
    """The templates that a captioner understands, by kind.

    Args:
        family: `model_type` of its architecture.
        chat: whether it has a chat template; only then it reads instructions.
        path: YAML file with the user's templates.
        constants, columns: as for `load_templates`.

    Raises:
        ConfigError: as `load_templates`; or a model without a chat template whose texts are
            unknown, or that is given templates or variables of the user's.
    """
    constants, columns = constants or {}, tuple(columns)
    if chat:
        return load_templates(path, constants, columns)
    if family not in NATIVE:
        raise ConfigError(
            f"The captioner has no chat template, and how to ask a {family or 'nameless'} model "
            f"is unknown (known without one: {', '.join(sorted(NATIVE))})."
        )
    if path or constants or columns:
        raise ConfigError(
            f"A {family} captioner has no chat template and reads no instructions; leave prompts, "
            f"prompt_variables and prompt_columns empty."
        )
    return dict(NATIVE[family])


def load_templates(
    path: Path | str | None = None,
    constants: Mapping[str, str] | None = None,
    columns: Iterable[str] = (),
) -> dict[str, PromptTemplate]:
    """The built-in templates and those of a YAML file, by kind.

    The file holds one block a kind, `KIND: {version: 1, text: ..., system: ..., alt_hint: ...,
    hints: [...], variables: {...}}`; only `text` is needed. A kind of the same name replaces the
    built-in one.

    Args:
        constants: values of variables, over those that the templates give.
        columns: names of variables that differ from row to row.

    Raises:
        ConfigError: the file is missing, is not such YAML, or a template is wrong; or no template
            has one of these variables.
    """
    constants, columns = constants or {}, tuple(columns)
    blocks = _read_file(path) if path else {}
    templates = {
        kind: _with_values(template, constants, columns)
        for kind, template in BUILT_IN.items()
        if kind not in blocks
    }
    for kind, block in blocks.items():
        templates[kind] = _template(kind, block, path or "", constants, columns)
    known = sorted({name for template in templates.values() for name in template.used})
    for name in (*constants, *columns):
        if name not in known:
            raise ConfigError(f"No prompt has the variable {name!r}; {nearest(name, known)}")
    return templates


def _with_values(
    template: PromptTemplate, constants: Mapping[str, str], columns: Iterable[str]
) -> PromptTemplate:
    """The template with the constants and columns that it uses."""
    used = template.used
    own = {name: value for name, value in constants.items() if name in used}
    return replace(
        template,
        variables={**template.variables, **own},
        columns=tuple(name for name in columns if name in used),
    )


def _read_file(path: Path | str) -> dict[str, Mapping[str, object]]:
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The prompt file {path} cannot be read ({error}).") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"The prompt file {path} is not valid YAML ({error}).") from error
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        raise ConfigError(f"The prompt file {path} must hold `kind:` blocks with a `text:` each.")
    return {str(kind): block for kind, block in loaded.items()}


def _template(
    kind: str,
    block: Mapping[str, object],
    path: Path | str,
    constants: Mapping[str, str],
    columns: tuple[str, ...],
) -> PromptTemplate:
    valid = ["version", "text", "system", "alt_hint", "hints", "variables"]
    refuse_unknown(block, valid, f"The prompt {kind!r} in {path}")
    variables, version = block.get("variables", {}), block.get("version", 1)
    hints = block.get("hints", [])
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
    if not isinstance(hints, list) or not all(isinstance(hint, str) for hint in hints):
        raise ConfigError(f"The hints of the prompt {kind!r} in {path} must be a list of texts.")
    if not texts["text"].strip():
        raise ConfigError(f"The prompt {kind!r} in {path} has no text.")
    return PromptTemplate(
        name=kind,
        version=version,
        hints=tuple(hints),
        variables={
            **{str(name): str(value) for name, value in variables.items()},
            **_used(constants, [*texts.values(), *hints]),
        },
        columns=tuple(_used(dict.fromkeys(columns, ""), [*texts.values(), *hints])),
        text=texts["text"],
        system=texts["system"],
        alt_hint=texts["alt_hint"],
    )


def _used(values: Mapping[str, str], texts: Iterable[str]) -> dict[str, str]:
    """Those whose `{name}` stands in one of the texts."""
    whole = "\n".join(texts)
    return {name: value for name, value in values.items() if f"{{{name}}}" in whole}
