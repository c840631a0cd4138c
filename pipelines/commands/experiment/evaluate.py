"""`caplab evaluate`: pipelines.ablation.evaluate is its function."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import click
from pydantic import Field

from curate.base.settings import OPERATIONAL, Device, Precision, Settings
from pipelines.ablation.settings import Judges, Prompts
from pipelines.terminal.options import PLACE, settings_options
from pipelines.terminal.quiet import say, show


class EvaluateSettings(Settings):
    """What one model is asked to draw, and who judges it."""

    GROUPS: ClassVar[dict[str, str]] = {"Pictures and judges": "prompts", "Running": "device"}

    prompts: Prompts = Field(
        ...,
        description="File of prompts, or {scenes, forms, wordings, ...} of the synthetic world",
    )
    judges: Judges = Field(..., description="Name -> options, a name, or a list of names")
    noises: int = Field(1, gt=0, description="Pictures of a prompt, each from a noise of its own")
    generation_seed: int = Field(0, ge=0, description="Of the noise")
    device: Device = Field(
        "auto", description="cpu, cuda, cuda:1; auto = a GPU if any", json_schema_extra=OPERATIONAL
    )
    precision: Precision = Field("auto", description="fp32 or bf16 of the model")


@click.command("evaluate")
@click.argument("run", metavar="RUN", type=PLACE)
@settings_options(EvaluateSettings)
def command(run: Path, settings: EvaluateSettings) -> None:
    """Draw prompts with one trained model, judge the pictures, print means.

    RUN is a training run, or the folder of a pipeline in diffusers' layout, which draws by its own
    defaults and is read from safetensors alone. Pictures and scores are kept in RUN; what is there
    is not drawn or scored again. One model alone is exploratory: `caplab ablate` compares with
    seeds and intervals.
    """
    say(f"evaluating {run}")
    from pipelines.ablation.evaluate import evaluate
    from pipelines.ablation.study import prompts_of

    show(
        evaluate(
            run,
            prompts_of(settings.prompts),
            settings.judges,
            settings.noises,
            settings.generation_seed,
            settings.device,
            settings.precision,
        )
    )
