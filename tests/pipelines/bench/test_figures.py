"""Figures, as a table and as JSON; whole-process costs of real commands."""

import json
import sys

import pytest

from curate.base.errors import CaplabError
from pipelines.bench.common.figures import Figure, render
from pipelines.bench.common.processes import run_measured


def test_a_goal_bounds_the_ratio_where_there_is_a_peer() -> None:
    figure = Figure("x/cpu", 2.0, "ms", "peer 1.0", peer_value=5.0, goal=0.5)
    assert figure.ratio == pytest.approx(0.4)
    assert figure.met is True
    assert Figure("x/rate", 2.0, "1/s", "peer", 1.5, goal=2, better="higher").met is False


def test_a_goal_bounds_the_value_where_there_is_no_peer() -> None:
    assert Figure("x/recall", 0.98, "", goal=0.99, better="higher").met is False
    assert Figure("x/wall", 3, "s").met is None


def test_json_is_one_object_a_line_with_the_promised_fields() -> None:
    lines = render([Figure("a", 1, "s"), Figure("b", 2, "s", "p", 4, 0.5)], as_json=True)
    records = [json.loads(line) for line in lines.splitlines()]
    assert {"name", "value", "unit", "peer", "ratio", "goal", "met"} <= set(records[0])
    assert records[1]["ratio"] == 0.5
    assert records[1]["met"] is True


def test_the_table_marks_a_missed_goal() -> None:
    assert render([Figure("b", 3, "s", "p", 4, 0.5)]).splitlines()[1].endswith("NO")


def test_cpu_time_of_a_grandchild_that_outlives_its_parent_is_counted() -> None:
    burn = "import time\nwhile time.process_time() < 0.8: pass"
    launch = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}])"
    cost = run_measured([sys.executable, "-c", launch])
    assert cost.cpu_seconds > 0.5


def test_a_command_that_fails_is_an_error_with_its_last_words() -> None:
    with pytest.raises(CaplabError, match="no luck"):
        run_measured([sys.executable, "-c", "import sys; sys.exit('no luck')"])
