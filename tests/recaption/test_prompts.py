from pathlib import Path

import pytest

from curate.errors import ConfigError
from recaption.prompts import DESCRIPTIVE, SHORT, load_templates, templates_for


def test_the_wording_of_a_built_in_prompt_changes_only_together_with_its_version() -> None:
    # Stored captions refer to these; a new wording needs a new version and then a new hash here.
    assert SHORT.id == "short@1"
    assert SHORT.sha256.startswith("e12435bf21af7de7")
    assert DESCRIPTIVE.id == "descriptive@1"
    assert DESCRIPTIVE.sha256.startswith("f9b9f2734cfc632c")


def test_a_row_is_shown_its_alt_text_only_when_asked_and_only_when_it_has_one() -> None:
    alt_texts = ["a red kite", None, "  "]
    without = SHORT.render(alt_texts)
    shown = SHORT.render(alt_texts, show_alt_text=True)

    assert without == [SHORT.text] * 3
    assert "a red kite" in shown[0]
    assert shown[1:] == [SHORT.text] * 2
    assert [SHORT.shows_alt_text(alt, True) for alt in alt_texts] == [True, False, False]


def test_braces_in_an_alt_text_are_no_variables() -> None:
    assert "{language} {alt_text}" in SHORT.render(["{language} {alt_text}"], True)[0]


def test_a_template_of_the_users_own_has_variables_and_a_version(tmp_path: Path) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text(
        "tags:\n  version: 3\n  text: List five tags in {language}.\n"
        "  variables: {language: German}\n"
    )
    template = load_templates(path)["tags"]

    assert template.id == "tags@3"
    assert template.render([None]) == ["List five tags in German."]
    assert set(load_templates(path)) == {"short", "descriptive", "tags"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tags: {text: 'Say {colour}.'}", "uses {colour}"),
        ("tags: {txt: hello}", "did you mean 'text'"),
        ("tags: {text: ''}", "has no text"),
        ("alt: {text: hello}", "cannot be a caption kind"),
        ("tags: hello", "blocks"),
        ("tags: {text: [}", "not valid YAML"),
        ("tags: {text: [1, 2]}", "must be strings"),
    ],
)
def test_a_wrong_prompt_file_gets_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_templates(path)


def test_a_captioner_without_chat_template_is_asked_in_its_own_words() -> None:
    assert templates_for("florence2", False, None)["short"].text == "<CAPTION>"
    assert templates_for("blip", False, None)["short"].render([None]) == [""]
    with pytest.raises(ConfigError, match="how to ask a fuyu model is unknown"):
        templates_for("fuyu", False, None)
