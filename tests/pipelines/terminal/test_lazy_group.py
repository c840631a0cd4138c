"""Commands that nobody imported yet are known by name."""

import pytest
from click.testing import CliRunner

from pipelines.cli import cli


@pytest.mark.parametrize(
    ("typed", "says"), [("scor", "Did you mean 'score'?"), ("curat", "Did you mean 'curate'?")]
)
def test_a_mistyped_command_names_the_nearest(typed: str, says: str) -> None:
    assert says in CliRunner().invoke(cli, [typed]).output
