"""Judges by name: one of JUDGES, an installed package's (entry point of the group
`caption_lab.judges`), or `module:Class`; examples/judge_of_your_own.py is one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from curate.base.errors import CaplabError, ConfigError
from curate.base.files import fingerprint
from curate.base.registry import load, said, tried
from curate.base.settings import load_settings
from pipelines.judges.prompts import PROMPTS
from pipelines.judges.protocol import Judge

_METRIC = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
TAKEN = ("arm", "seed", "noise", "noise_seed", "picture_id", *PROMPTS.names)
"""Columns that describe a picture beside its scores."""

JUDGES = {
    "world": "pipelines.judges.world:WorldJudge",
    "clip": "pipelines.judges.clip:ClipJudge",
    "vqa": "pipelines.judges.vqa:VqaJudge",
    "detector": "pipelines.judges.detector:DetectorJudge",
    "reward": "pipelines.judges.reward:RewardJudge",
    "round-trip": "pipelines.judges.round_trip:RoundTripJudge",
    "real": "pipelines.judges.real.judge:RealJudge",
}


def judge_class(name: str) -> type[Judge]:
    """The class of a judge; loads no weights.

    Raises:
        ConfigError: there is none of that name, or it is no judge.
    """
    found = load("judges", name, JUDGES)
    if not (isinstance(found, type) and issubclass(found, Judge)):
        raise ConfigError(f"{name} is no class derived from Judge (pipelines.judges.protocol).")
    return found


def make_judge(name: str, options: Mapping[str, Any], device: str) -> Judge:
    """The judge of a name with its options, its weights loaded.

    Raises:
        ConfigError: there is none of that name, it is no judge, an option is wrong, or its weights
            do not load.
    """
    found = judge_class(name)
    settings = load_settings(found.Options, None, options)
    judge = tried(lambda: found(settings, device))
    if isinstance(judge, CaplabError):
        raise judge
    if isinstance(judge, Exception):
        raise ConfigError(f"The judge {name} cannot be made ({said(judge)}).") from judge
    if not judge.metrics:
        raise ConfigError(f"The judge {name} names no metrics.")
    if isinstance(judge.metrics, str):
        raise ConfigError(f"The judge {name} has metrics that are one text; they are a tuple.")
    for metric in judge.metrics:
        if not (isinstance(metric, str) and _METRIC.fullmatch(metric)) or metric in TAKEN:
            raise ConfigError(
                f"The judge {name} has a metric {metric!r}; metrics are columns of letters, digits "
                f"and _, and {', '.join(TAKEN)} are others."
            )
    return judge


def judge_id(name: str, judge: Judge) -> str:
    """What its scores are stored under: its name, and a hash of options and weights."""
    mark = fingerprint([name, judge.options.identity(), judge.identity()])
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}-{mark}"


@cache
def kept_judge(name: str, options: str, device: str) -> Judge:
    """A judge that this process made before; loading weights costs seconds.

    Args:
        options: as JSON.
    """
    import json

    return make_judge(name, json.loads(options), device)
