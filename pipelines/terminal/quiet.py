"""Libraries' remarks and bars, which would tear ours: silenced in one place, workers too."""

from __future__ import annotations

import os

import click

from curate.base.telling.events import emit, is_quiet

_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",  # "Token indices sequence length is longer than ..."
    "DIFFUSERS_VERBOSITY": "error",  # "There are modules in ... that should be kept in float32"
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' "Loading weights" as well
    "HF_HUB_VERBOSITY": "error",  # a line for every retry; the last one is in our sentence
    "TOKENIZERS_PARALLELISM": "false",  # or each forked process is warned of
}


def quiet_libraries() -> None:
    """Set what the libraries read when they are imported; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def say(sentence: str) -> None:
    """Tell on stderr what begins now, before the imports that it takes."""
    emit("told", text=sentence)
    if not is_quiet():
        click.echo(sentence, err=True)
