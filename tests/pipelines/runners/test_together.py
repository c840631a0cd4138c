"""Several processes do one task together, as torchrun would start them."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from curate.base.errors import ConfigError, StageError
from pipelines.runners.local import Local


@dataclass(frozen=True)
class Sum:
    """Adds the ranks up over a process group, and writes what each got."""

    folder: Path

    def __call__(self, factor: int) -> None:
        import torch
        from torch import distributed

        distributed.init_process_group("gloo")
        value = torch.tensor([float(factor * distributed.get_rank())])
        distributed.all_reduce(value)
        distributed.destroy_process_group()
        place = os.environ["LOCAL_RANK"]
        (self.folder / os.environ["RANK"]).write_text(f"{value.item():g} {place}")


@dataclass(frozen=True)
class Fails:
    """The second process fails in the way that is named; the first would wait for long."""

    folder: Path

    def __call__(self, how: str) -> None:
        (self.folder / f"process-{os.environ['RANK']}").write_text(str(os.getpid()))
        if os.environ["RANK"] == "0":
            time.sleep(600)
        while not (self.folder / "process-0").exists():
            time.sleep(0.01)
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ConfigError("A setting is wrong.") if how == "refuses" else ValueError("no luck")


def test_processes_find_one_another_by_the_variables_that_torchrun_sets(tmp_path: Path) -> None:
    Local().together(Sum(tmp_path), 10, 3)
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["30 0", "30 1", "30 2"]


@pytest.mark.parametrize(
    ("how", "error", "sentence"),
    [
        ("refuses", ConfigError, r"^A setting is wrong\.$"),
        ("raises", StageError, r"process 1 of 2: ValueError \(no luck\)"),
        ("dies", StageError, "process 1 of 2: its worker died"),
    ],
)
def test_when_one_fails_all_end_and_the_reason_is_told(
    tmp_path: Path, how: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        Local().together(Fails(tmp_path), how, 2)
    assert not psutil.pid_exists(int((tmp_path / "process-0").read_text()))
