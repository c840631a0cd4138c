"""What a person sees: results and sentences of ours, and no bars of libraries that would tear them.

Whatever is printed goes through `show`, `say`, curate.base.progress.tell or
pipelines.terminal.failures, and so without control characters of a stranger's.
"""

from __future__ import annotations

import logging
import os

import click

from curate.base.telling.events import emit, is_quiet
from curate.base.telling.words import in_a_line, visible

_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",  # "Token indices sequence length is longer than ..."
    "DIFFUSERS_VERBOSITY": "error",  # "There are modules in ... that should be kept in float32"
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' "Loading weights" as well
    "HF_HUB_VERBOSITY": "error",  # a line for every retry; the last one is in our sentence
    "TOKENIZERS_PARALLELISM": "false",  # or each forked process is warned of
}


class _Remarks(logging.Handler):
    """Tells what our own libraries, and Python, warn of as any other remark."""

    def emit(self, record: logging.LogRecord) -> None:
        from curate.base.progress import tell

        tell(self.format(record), "warning")


_REMARKS = _Remarks(logging.WARNING)


def quiet_libraries() -> None:
    """Set what the libraries read when they are imported; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.captureWarnings(True)
    for name in ("curate", "recaption", "train", "pipelines", "py.warnings"):
        logging.getLogger(name).addHandler(_REMARKS)


def say(sentence: str) -> None:
    """Tell on stderr what begins now, before the imports that it takes."""
    emit("told", text=sentence)
    if not is_quiet():
        click.echo(in_a_line(sentence), err=True)


def show(result: object) -> None:
    """Print what a command found; a stranger's text in it moves no cursor and hides nothing."""
    click.echo(visible(str(result)))
