"""Options generated from a settings class."""

import re
from itertools import chain
from pathlib import Path
from typing import Literal

import click
import pytest
import yaml
from click.testing import CliRunner
from pydantic import Field

from curate.base.errors import ConfigError
from curate.base.settings import EACH, Precision, Settings, load_settings, named_values
from curate.search.settings import SearchSettings
from pipelines.bench.commands import bench
from pipelines.cli import HELP, cli
from pipelines.commands.captioner import command as captioner
from pipelines.commands.curate import CurateSettings
from pipelines.commands.experiment.evaluate import EvaluateSettings
from pipelines.commands.recaption import RecaptionCommandSettings
from pipelines.commands.score import ScoreCommandSettings
from pipelines.commands.train import TrainCommandSettings
from pipelines.terminal.groups import experts_of, groups_of
from pipelines.terminal.options import settings_options
from recaption.fit.settings import FitSettings
from recaption.upsample.settings import UpsampleSettings
from train.settings import TrainSettings


class Example(Settings):
    """One field of each type that an option can have."""

    size: int = Field(256, gt=0, description="Pixels.")
    rate: float | None = Field(None, description="A second.")
    keep: bool = Field(False, description="Whether to keep it.")
    mode: Literal["fast", "good"] = Field("fast", description="How.")
    kinds: tuple[str, ...] = Field(("short",), description="Which.")
    blend: dict[str, float] = Field({"alt": 1.0}, description="Shares.")
    source: Literal["csv", "jsonl"] | None = Field(None, description="Where from.")
    tags: tuple[str, ...] | None = Field(None, description="Which, if any.")
    ask: dict[str, str] = Field({}, description="Questions.", json_schema_extra=EACH)
    arms: dict[str, dict[str, float]] = Field({"a": {"alt": 1.0}}, description="Nested.")


@pytest.fixture
def run():
    """Invoke a command made of Example and return the settings that it resolved."""
    seen = {}

    @click.command()
    @settings_options(Example)
    def command(settings):
        seen["settings"] = settings

    def invoke(*arguments: str):
        result = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return seen["settings"]

    invoke.command = command
    return invoke


def test_no_option_gives_the_defaults(run):
    assert run() == Example()


def test_every_type_of_field_can_be_given_as_an_option(run):
    settings = run(
        *("--size", "64", "--rate", "2.5", "--keep", "--mode", "good", "--kinds", "a,b"),
        *("--blend", "descriptive=0.95,alt=0.05", "--arms", "{x: {short: 1}}"),
    )
    assert settings == Example(
        size=64,
        rate=2.5,
        keep=True,
        mode="good",
        kinds=("a", "b"),
        blend={"descriptive": 0.95, "alt": 0.05},
        arms={"x": {"short": 1.0}},
    )


def test_a_list_or_mapping_given_in_several_parts_is_whole(run):
    told = run(*("--kinds", "a", "--kinds", "b,c", "--blend", "x=0.5", "--blend", "y=0.5"))
    assert told.kinds == ("a", "b", "c")
    assert told.blend == {"x": 0.5, "y": 0.5}
    result = CliRunner().invoke(run.command, ["--blend", "x=0.5", "--blend", "x=0.4"])
    assert "'x' is given twice" in result.output


def test_options_win_over_the_yaml_file(run, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("size: 512\nkeep: true\n")
    settings = run("--config", str(path), "--size", "64", "--no-keep")
    assert (settings.size, settings.keep) == (64, False)


def test_none_clears_a_setting_that_may_be_empty(run, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("rate: 3.0\n")
    assert run("--config", str(path)).rate == 3.0
    assert run("--config", str(path), "--rate", "none").rate is None


@pytest.mark.parametrize("text", ["none", "null"])
def test_none_clears_every_type_of_setting_that_may_be_empty(run, text, tmp_path):
    if text == "none":
        assert run("--rate", "none", "--source", "none", "--tags", "none") == Example()
        assert "[csv|jsonl]" in CliRunner().invoke(run.command, ["--help"]).output
    path = tmp_path / "settings.yaml"
    path.write_text(f"rate: {text}\nsource: {text}\ntags: {text}\n")
    assert run("--config", str(path)) == Example()


def test_help_shows_what_a_setting_means_and_its_default(run):
    text = CliRunner().invoke(run.command, ["--help"]).output
    assert "--size" in text
    assert "Pixels" in text
    assert "[default: 256]" in text


def test_a_mistyped_option_is_answered_with_the_nearest(run):
    result = CliRunner().invoke(run.command, ["--kind", "a"])
    assert result.exit_code == 2
    assert "--kinds" in result.output


def test_named_values_with_commas_are_written_as_in_yaml(run):
    assert run("--blend", "{alt: 0.25, short: 0.75}").blend == {"alt": 0.25, "short": 0.75}


def test_a_named_text_is_given_as_often_as_wanted_and_keeps_its_commas(run):
    asked = run("--ask", "logo=Is there a logo, or a mark?", "--ask", "sum=Is 1+1=2?").ask
    assert asked == {"logo": "Is there a logo, or a mark?", "sum": "Is 1+1=2?"}
    assert run().ask == {}
    for wrong, told in ((["a=b", "a=c"], "'a' is given twice"), (["logo"], "NAME=TEXT")):
        arguments = [part for one in wrong for part in ("--ask", one)]
        assert told in CliRunner().invoke(run.command, arguments).output


def test_a_part_without_a_value_is_refused():
    with pytest.raises(ConfigError, match="'alt' is not of the form"):
        named_values("descriptive=0.95,alt")


def own(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


COMMANDS = {
    f"{group}{name}": command
    for group, commands in (
        ("", own(cli)),
        ("bench ", own(bench)),
        ("captioner ", own(captioner)),
    )
    for name, command in commands.items()
}


def test_the_list_of_commands_says_what_each_says_itself():
    # It is printed without importing them.
    for name, told in HELP.items():
        itself = COMMANDS[name].get_short_help_str(200)
        assert told.split()[0] == itself.split()[0], f"{name}: {itself}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_prints_no_warnings(name: str, recwarn: pytest.WarningsRecorder):
    result = CliRunner().invoke(COMMANDS[name], ["--help"])
    assert result.exit_code == 0
    assert not result.stderr
    assert not recwarn.list


SETTINGS = {
    name: command.callback.settings_class
    for name, command in COMMANDS.items()
    if hasattr(command.callback, "settings_class")
}
REQUIRED = {
    "captioner": "model",
    "of": "alt",
    "rule": "shuffle",
    "prompts": "{scenes: 8}",
    "judges": "world",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_that_config_prints_are_the_defaults(name: str, tmp_path: Path):
    result = CliRunner().invoke(cli, ["config", *name.split()])
    assert result.exit_code == 0, result.output
    cls, path = SETTINGS[name], tmp_path / "settings.yaml"
    path.write_text(result.output)
    needed = {n: REQUIRED[n] for n, info in cls.model_fields.items() if info.is_required()}
    needed |= {"text": "a red bicycle"} if name == "search" else {}  # or like
    defaults = load_settings(cls, None, needed)
    assert load_settings(cls, path, needed) == defaults
    # The same with every # taken away.
    path.write_text(re.sub(r"^#(?! )", "", result.output, flags=re.MULTILINE))
    assert set(yaml.safe_load(path.read_text())) == set(cls.model_fields) - set(cls.RENAMED)
    assert load_settings(cls, path, needed) == defaults
    for described in cls.model_fields.values():
        assert described.description


def test_config_names_the_commands_that_have_settings():
    result = CliRunner().invoke(cli, ["config", "compare"])
    assert result.exit_code == 2
    assert "these do: curate, score" in result.output
    assert "Did you mean 'curate'?" in CliRunner().invoke(cli, ["config", "curat"]).output


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_in_a_group_and_few_are_for_experts_alone(name: str):
    groups, fields = groups_of(SETTINGS[name]), SETTINGS[name].model_fields
    assert sorted(chain.from_iterable(groups.values())) == sorted(
        set(fields) - set(SETTINGS[name].RENAMED)
    )
    classes = SETTINGS[name].__mro__
    starts = {first for cls in classes for first in getattr(cls, "GROUPS", {}).values()}
    assert starts <= set(fields)
    assert experts_of(SETTINGS[name]) <= set(fields)
    shown = CliRunner().invoke(COMMANDS[name], ["--help"]).output
    everything = CliRunner().invoke(COMMANDS[name], ["--help-all"]).output
    options = {param.name for param in COMMANDS[name].params}
    for heading, names in groups.items():
        assert (f"\n{heading}:\n" in everything) == bool(options & set(names))
    for expert in experts_of(SETTINGS[name]):
        assert f"--{expert.replace('_', '-')} " not in shown


COMPUTING = {
    "search": SearchSettings,
    "curate": CurateSettings,
    "score": ScoreCommandSettings,
    "recaption": RecaptionCommandSettings,
    "train": TrainCommandSettings,
    "evaluate": EvaluateSettings,
    "captioner fit": FitSettings,
    "upsample": UpsampleSettings,
}


def test_precision_and_device_take_the_same_words_in_every_command():
    for option, kind in (("precision", Precision), ("device", str)):
        having = {n for n, c in COMMANDS.items() if any(p.name == option for p in c.params)}
        having -= {"judge"}  # it takes what a judge takes, and has no settings of its own
        asked = set(COMPUTING) - ({"search"} if option == "precision" else set())
        assert having == asked
        fields = [COMPUTING[name].model_fields[option] for name in asked]
        assert {str(field.annotation) for field in fields} == {str(kind)}
    metadata = [cls.model_fields["device"].metadata for cls in COMPUTING.values()]
    assert all(checks == metadata[0] for checks in metadata), "one check of the device's word"


@pytest.mark.parametrize("cls", [FitSettings, TrainCommandSettings])
def test_training_in_fp16_is_refused_with_the_reason(cls):
    with pytest.raises(ConfigError, match="fp16 need loss scaling"):
        load_settings(cls, None, {"precision": "fp16"})


def test_the_threads_of_a_run_have_one_name_in_the_command_s_settings():
    with pytest.raises(ConfigError, match="threads is called cpus now"):
        load_settings(TrainCommandSettings, None, {"threads": 4})
    assert TrainCommandSettings(cpus=3).part(TrainSettings).threads == 0
