"""`caplab view` from the terminal: where it listens, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.store.dataset import Dataset
from pipelines.bench.common.children import tied
from pipelines.view.command import view
from pipelines.view.serve import listen
from pipelines.view.settings import ViewSettings


def test_it_prints_its_address_and_ends_with_ctrl_c(viewed: Dataset) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "view", viewed.directory, "--port", "0"]
    process = subprocess.Popen(
        tied(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = process.stdout.readline()
    address = next(word for word in told.split() if word.startswith("http://127.0.0.1:"))
    assert httpx.get(address, timeout=60).status_code == 200
    assert httpx.get(address + "api/about", timeout=60).json()["name"] == viewed.directory.name
    taken = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"Port {taken} is taken.*--port 0"):
        view(viewed.directory, ViewSettings(port=taken))
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, "")
    assert not (viewed.directory / ".locks").exists()
    own = f".{process.pid}.tmp"
    assert not [path for path in (viewed.directory / "view").iterdir() if path.name.endswith(own)]


def test_it_ends_with_a_signal_and_q_leaves_out_where_the_cache_is(
    own: Dataset, tmp_path: Path
) -> None:
    (own.directory / "view").write_text("root may write anywhere, but not below a file")
    command = [sys.executable, "-m", "pipelines.cli", "view", own.directory, "--port", "0", "-q"]
    process = subprocess.Popen(
        tied(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert "http://127.0.0.1:" in process.stdout.readline()
    process.terminate()
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0
    assert list(tmp_path.glob("caplab-view-*"))


def test_other_machines_are_let_in_only_where_that_is_asked(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(ConfigError, match="--allow-remote"):
            listen(ViewSettings(host=host, port=0))
    with pytest.raises(ConfigError, match="cannot be listened on"):
        listen(ViewSettings(host="192.0.2.1", port=0, allow_remote=True))
    with listen(ViewSettings(host="localhost", port=0)) as listening:
        assert listening.getsockname()[1] > 0
    with listen(ViewSettings()) as first, listen(ViewSettings()) as second:
        assert second.getsockname()[1] > first.getsockname()[1]
    with pytest.raises(DatasetError, match="neither a dataset nor a run"):
        view(tmp_path, ViewSettings(port=0))
