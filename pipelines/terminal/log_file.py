"""`--log-file`: what a run tells, a line of JSON each."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from curate.base.errors import ConfigError
from curate.base.telling.events import Level


class LogFile:
    """Writes each event as one line in one write; safe for many threads.

    A log that cannot be written any more (its disk is full) is told once, and the run goes on.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigError(f"--log-file {path} cannot be written ({error.strerror}).") from error
        self._lock = threading.Lock()

    def __call__(self, event: str, level: Level, values: dict[str, Any]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = plain({"time": now, "level": level, "event": event, **values})
        line = json.dumps(told, allow_nan=False).encode() + b"\n"
        with self._lock:
            if self._file is None:
                return
            try:
                os.write(self._file, line)
            except OSError as error:
                self._file = None
                told = f"--log-file {self._path} cannot be written any more ({error.strerror})"
                click.echo(f"caplab: {told}; the run goes on without it.", err=True)


def plain(value: Any) -> Any:
    """The same in what every reader of JSON takes: no NaN, no half of a character."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return str(value).encode("utf-8", "replace").decode()
