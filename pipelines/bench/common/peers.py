"""Peers, each in an environment of its own: their pins must not meet ours or one another's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from curate.base.errors import CaplabError, ConfigError
from pipelines.bench.common.children import tied

_REQUIREMENTS = Path(__file__).parents[1] / "requirements"


def peer_python(name: str) -> Path:
    """The Python of peer `name`, whose pins stand in requirements/NAME.txt; installed when new.

    Environments lie in $CAPLAB_PEERS, by default ~/.cache/caption-lab/peers, one a peer and a
    version of its pins.

    Raises:
        ConfigError: there is no such requirement file.
        CaplabError: the installation failed.
    """
    requirements = _REQUIREMENTS / f"{name}.txt"
    if not requirements.is_file():
        known = ", ".join(sorted(path.stem for path in _REQUIREMENTS.glob("*.txt")))
        raise ConfigError(f"There is no peer {name!r}; there are {known}.")
    root = Path(os.environ.get("CAPLAB_PEERS", "~/.cache/caption-lab/peers")).expanduser()
    mark = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    environment = root / f"{name}-{mark}"
    python = environment / "bin" / "python"
    if not (environment / ".ready").exists():
        shutil.rmtree(environment, ignore_errors=True)
        root.mkdir(parents=True, exist_ok=True)
        uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
        _run([uv, "venv", "--quiet", "--python", sys.executable, environment])
        _run([uv, "pip", "install", "--quiet", "--python", python, "-r", requirements])
        (environment / ".ready").touch()
    return python


def peer_version(name: str, package: str | None = None) -> str:
    """What peer `name` runs, such as "img2dataset 1.47.0"; `package` where it has another name."""
    code = f"import importlib.metadata as m; print(m.version({package or name!r}))"
    version = subprocess.check_output(tied([peer_python(name), "-c", code]), text=True).strip()
    return f"{name} {version}"


def _run(command: list[str | Path]) -> None:
    if shutil.which(command[0]) is None:
        raise CaplabError("Peers are installed with uv; `pip install uv` first.")
    done = subprocess.run(tied(command), capture_output=True, text=True)
    if done.returncode:
        words = " ".join(map(str, command))
        raise CaplabError(f"{words} failed:\n{done.stderr.strip()[-2000:]}")
