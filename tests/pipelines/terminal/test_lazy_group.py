"""Commands that nobody imported yet are known by name."""

import ast
import subprocess
import sys

import pytest
from click.testing import CliRunner

from pipelines.cli import HELP, cli


@pytest.mark.parametrize(
    ("typed", "says"), [("scor", "Did you mean 'score'?"), ("curat", "Did you mean 'curate'?")]
)
def test_a_mistyped_command_names_the_nearest(typed: str, says: str) -> None:
    assert says in CliRunner().invoke(cli, [typed]).output


def test_a_tab_completes_commands_options_and_choices_and_imports_no_other_command() -> None:
    code = """
import sys
from click.shell_completion import BashComplete
from pipelines.cli import cli
complete = BashComplete(cli, {}, "caplab", "_CAPLAB_COMPLETE").get_completions
print([item.value for item in complete([], "")])
print([item.value for item in complete(["config"], "cu")])
print([name for name in sys.modules if name.startswith("pipelines.commands")])
print([item.value for item in complete(["curate"], "--clip-m")])
print([item.value for item in complete(["curate", "--encode-format"], "")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, config, imported, options, choices = map(ast.literal_eval, done.stdout.splitlines())
    assert (names, config, imported) == (list(HELP), ["curate"], [])
    assert (options, choices) == (["--clip-model"], ["jpg", "png", "webp"])
