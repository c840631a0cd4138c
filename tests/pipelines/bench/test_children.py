"""Children end with the process that started them, also by kill -9."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipelines.bench.common.children import tied

ROOT = Path(__file__).parents[3]
PARENT = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from pipelines.bench.common.children import tied
child = subprocess.Popen(tied(["sleep", "60"]))
print(child.pid, flush=True)
child.wait()
"""


def alive(pid: int) -> bool:
    """Whether it runs; an adopted zombie has ended."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_tied_child_ends_when_its_parent_is_killed(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-S", "-c", PARENT, str(ROOT)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.send_signal(number)
    parent.wait()
    deadline = time.monotonic() + 10
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


def test_a_tied_command_is_the_command_itself(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getpid(), sys.argv[1:], os.environ['PYTHONPATH']); sys.exit(7)"
    command = tied([sys.executable, "-c", code, tmp_path, 3])
    env = {**os.environ, "PYTHONPATH": "/somewhere"}
    done = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    said, _ = done.communicate()
    assert said.strip() == f"{done.pid} {[str(tmp_path), '3']} /somewhere"
    assert done.returncode == 7


def test_a_command_that_is_not_there_ends_as_in_a_shell() -> None:
    done = subprocess.run(tied(["no-such-command"]), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (127, "no-such-command: No such file or directory\n")
