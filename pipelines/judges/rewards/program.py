"""Scores of a program in an environment of its own.

It is started with a folder as its last argument, which holds

    000000.png, 000001.png, ...    the pictures
    asked.jsonl                    {"picture": "000000.png", "prompt": "a red fox"} a line

writes `scores.jsonl` there, {"picture": "000000.png", "score": 0.31} a line in any order, and ends
with status 0. What it prints is shown only where it fails.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.base.errors import CaplabError, ConfigError
from curate.base.reasons import printable
from pipelines.judges.protocol import Pictures

_LONGEST = 300  # characters of what the program says


def scored_by(
    program: Sequence[str], pictures: Pictures, texts: Sequence[str], timeout: float
) -> NDArray[np.float64]:
    """A score a picture, (N,).

    Raises:
        ConfigError: the program cannot be started.
        CaplabError: it fails, takes longer than `timeout` seconds, or a score is missing or wrong.
    """
    with tempfile.TemporaryDirectory(prefix="caplab-judge-") as name:
        folder = Path(name)
        names = [f"{number:06d}.png" for number in range(len(pictures))]
        for file, picture in zip(names, pictures, strict=True):
            Image.fromarray(picture).save(folder / file, compress_level=1)
        lines = [
            json.dumps({"picture": file, "prompt": text})
            for file, text in zip(names, texts, strict=True)
        ]
        (folder / "asked.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        _run([*program, name], timeout)
        return _scores(folder / "scores.jsonl", names, program[0])


def _run(command: Sequence[str], timeout: float) -> None:
    try:
        # A session of its own, so that what it started ends with it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(f"The judge's program {command[0]} does not start ({error}).") from error
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise CaplabError(
            f"The judge's program {command[0]} took more than {timeout:g} s; raise timeout, or "
            f"judge on a faster machine."
        ) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        lines = printable(said.decode(errors="replace").strip().rpartition("\n")[2])
        raise CaplabError(
            f"The judge's program {command[0]} failed with status {process.returncode}: "
            f"{lines[:_LONGEST] or 'it says nothing'}."
        )


def _scores(path: Path, names: Sequence[str], program: str) -> NDArray[np.float64]:
    if not path.is_file():
        raise CaplabError(f"The judge's program {program} wrote no scores.jsonl.")
    found: dict[str, float] = {}
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
            picture, score = row["picture"], row["score"]
            right = isinstance(score, int | float) and math.isfinite(score)
            right &= picture not in found
        except (ValueError, KeyError, TypeError):
            right = False
        if not right:
            raise CaplabError(
                f"The judge's program {program} wrote a wrong line {number} in scores.jsonl: "
                f"{printable(line)[:_LONGEST]}."
            )
        found[picture] = float(score)
    lost = [name for name in names if name not in found]
    if lost or len(found) != len(names):
        raise CaplabError(
            f"The judge's program {program} scored {len(names) - len(lost)} of {len(names)} "
            f"pictures{f' and not {lost[0]}' if lost else ', and others that nobody asked for'}."
        )
    return np.array([found[name] for name in names], np.float64)
