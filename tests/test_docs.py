"""The documentation speaks of files, pages, commands and options that are there."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import duckdb
import pytest
import yaml
from click.core import ParameterSource

from curate.base.settings import Settings, load_settings
from curate.base.telling.events import forget
from pipelines.ablation.settings import AblateSettings
from pipelines.cli import cli
from train.model_settings import ModelConfig
from train.settings import TrainSettings, load_preset

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INDEX = ROOT / "docs" / "README.md"
# `curate/base/files.py`, `examples/x.py`, `curate/scoring/`; not the tables of a dataset.
PLACE = re.compile(
    r"(?<![\w./-])((?:curate|recaption|train|pipelines|tests|examples|docs)/[\w./-]*\w/?)"
)
LINK = re.compile(r"\]\(([^)#\s:]*)(?:#([^)\s]+))?\)")
# What follows `caplab` on a line, up to a comment, the end of a code span or of a table's cell.
CALL = re.compile(r"caplab +([a-z][a-z-]*)([^`|#\n]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
OURS = ("curate", "recaption", "train", "pipelines")
MODULE = re.compile(r"(?<![\w./-])((?:curate|recaption|train|pipelines)(?:\.[a-z_]+)+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_module_that_a_page_names_is_there(page: Path):
    text = page.read_text(encoding="utf-8")
    # train/00000 is a folder of an export; train/PRESET/... and train/memory/... are figures.
    other = re.compile(r"train/(0|photo-64/|world-small/|memory|pictures|\d)")
    places = [place for place in PLACE.findall(text) if not other.match(place)]
    lost = [place for place in places if not (ROOT / place.rstrip("/.")).exists()]
    for name in MODULE.findall(text):
        place = ROOT / Path(*name.split("."))
        # The last part may be a name inside the module.
        if not any(p.with_suffix(".py").exists() or p.is_dir() for p in (place, place.parent)):
            lost.append(name)
    assert not lost


def headings(page: Path) -> set[str]:
    """The names under which GitHub lets one link to a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path):
    lost = []
    for place, heading in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (heading and heading not in headings(target)):
            lost.append(f"{place}#{heading}")
    assert not lost


@pytest.mark.parametrize("index", [INDEX, INDEX.parent / "results" / "README.md"])
def test_an_index_names_every_page(index: Path):
    pages = [page for page in PAGES if page.parent == index.parent]
    named = {place for place, _ in LINK.findall(index.read_text(encoding="utf-8"))}
    assert not {page.name for page in pages} - {index.name} - named


def test_the_plan_of_the_house_names_every_room_and_lists_none_that_is_gone():
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {
        path.name
        for package in OURS
        for path in (ROOT / package).iterdir()
        if package != "train" and path.is_dir() and path.name != "__pycache__"
    }
    assert not {room for room in rooms if f"`{room}`" not in told}


def command_of(words: list[str]) -> tuple[str, click.Command | None]:
    """The command that words begin with; takes its name off them."""
    found: click.Command | None = cli
    name = []
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        name.append(words.pop(0))
        found = found.get_command(click.Context(found), name[-1])
    return " ".join(name), found


def options_of(command: click.Command) -> set[str]:
    return {o for param in command.params for o in (*param.opts, *param.secondary_opts)}


def test_every_command_and_option_that_a_page_calls_is_there():
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for first, rest in CALL.findall(text):
            words = [first, *rest.split()]
            name, command = command_of(words)
            if isinstance(command, click.Group):  # named as a whole
                continue
            wrong += [
                f"{page.name}: caplab {name} {option}"
                for option in OPTION.findall(" ".join(words))
                if command is not None and option not in options_of(command)
            ]
            if command is None:
                wrong.append(f"{page.name}: caplab {name}")
    assert not wrong


def every_command(group: click.Group = cli) -> Iterator[click.Command]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield from every_command(command) if isinstance(command, click.Group) else [command]


def test_the_help_of_every_command_fits_eighty_columns():
    wide = []
    for command in [cli, *every_command()]:
        name = str(command.name)
        context = click.Context(command, info_name=name, terminal_width=80)
        wide += [
            f"{name}: {line}"
            for line in command.get_help(context).splitlines()
            if len(line) > 80 and "|" not in line  # a list of words to choose from
        ]
    assert not wide


# Of vLLM, kohya's scripts, and programs of ours that are no commands.
OF_OTHERS = {
    *("--generation-config", "--sampling-defaults", "--mm-processor-cache-gb", "--dataset"),
    *("--levels", "--study", "--small"),
}


def test_every_option_that_stands_alone_in_a_page_is_some_commands():
    known = set[str]().union(*map(options_of, every_command())) | {"--help", "--version"}
    wrong = [
        f"{page.name}: {option}"
        for page in PAGES
        for span in re.findall(r"`(--[^`\n]+)`", page.read_text(encoding="utf-8"))
        for option in OPTION.findall(span)
        if option not in known | OF_OTHERS
    ]
    assert not wrong


def blocks(page: Path, *languages: str) -> list[str]:
    """The page's fenced blocks in these languages."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def written(page: Path, by: str) -> list[str]:
    """What a page's commands that match `by` are given as a here-document."""
    shell = "".join(blocks(page, "bash"))
    return re.findall(rf"^{by} <<'END'\n(.*?)END", shell, re.MULTILINE | re.DOTALL)


def calls(page: Path) -> Iterator[list[str]]:
    """The arguments of each `caplab ...` to paste; not of one in which something is left out."""
    text = page.read_text(encoding="utf-8")
    # Up to the words beside it; a form with [OPTION] in it is none to paste.
    indented = re.findall(r"^    (caplab (?:(?!  )[^\[\n])*)(?:  .*)?$", text, re.MULTILINE)
    for block in [*blocks(page, "bash"), *indented]:
        for line in block.replace("\\\n", " ").splitlines():
            if not line.startswith("caplab "):
                continue
            words = shlex.split(line, comments=True)[1:]
            end = next((n for n, word in enumerate(words) if word in (">", "&", "|", "&&")), None)
            if "..." not in words[:end]:
                yield words[:end]


def take(words: list[str]) -> None:
    """Parse a command as the command line does, and check its settings."""
    name, command = command_of(words)
    assert command is not None, name
    try:
        context = command.make_context(name, words)
    except click.exceptions.Exit:  # --help and the like
        return
    finally:
        forget()  # -v and -q were heard
    if (cls := getattr(command.callback, "settings_class", None)) is not None:
        given = {
            field: context.params[field]
            for field in cls.model_fields
            if context.get_parameter_source(field) is ParameterSource.COMMANDLINE
        }
        needed = {n: "x" for n, info in cls.model_fields.items() if info.is_required()}
        if issubclass(cls, TrainSettings) and Path(given.get("model", "")).suffix:
            del given["model"]  # a file of the reader's
        load_settings(cls, None, needed | given)


def test_every_command_to_paste_is_one_that_the_parsers_take():
    wrong = []
    for page in PAGES:
        for words in calls(page):
            try:
                take(list(words))
            except Exception as error:
                wrong.append(f"{page.name}: caplab {shlex.join(words)}: {error}")
    assert not wrong


def test_every_yaml_of_a_page_is_read_by_what_it_is_for(tmp_path: Path):
    for page in PAGES:
        for number, block in enumerate([*blocks(page, "yaml"), *written(page, "cat > [^\n]*yaml")]):
            file = tmp_path / f"{page.stem}-{number}.yaml"
            file.write_text(block, encoding="utf-8")
            found = yaml.safe_load(block)
            if "base" in found:
                load_settings(ModelConfig, None, load_preset(str(file))["model"])
            elif "arms" in found or "judges" in found:
                load_settings(AblateSettings, file)


def test_python_and_sql_of_a_page_are_of_what_is_there():
    for page in PAGES:
        for block in blocks(page, "sql"):
            assert duckdb.extract_statements(block)
        for block in [*blocks(page, "python"), *written(page, "python -")]:
            tree = ast.parse(block)
            named = {}
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith(OURS):
                    module = importlib.import_module(str(node.module))
                    named |= {one.name: getattr(module, one.name) for one in node.names}
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    cls = named.get(node.func.id)
                    if isinstance(cls, type) and issubclass(cls, Settings):
                        assert {word.arg for word in node.keywords} <= set(cls.model_fields)


def test_the_sentences_of_the_troubles_are_those_that_commands_say():
    """What a person looks up has to be found by its own words."""
    source = "\n".join(
        path.read_text(encoding="utf-8") for room in OURS for path in (ROOT / room).rglob("*.py")
    )
    said = re.sub(r"\"\s*\n\s*f?\"", "", source)
    lost = []
    for row in re.findall(r"^\| (.*?) \|", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE):
        for sentence in re.findall(r"`([^`]+)`", row):
            words = re.sub(r"\.\.\.|[:,;.]$", " ", sentence).split()
            threes = [" ".join(words[n : n + 3]) for n in range(len(words) - 2)]
            if len(words) > 3 and not any(three in said for three in threes):
                lost.append(sentence)
    assert not lost
