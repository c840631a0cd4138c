"""What an ablation compares: arms that differ in their captions, and nothing else."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from curate.base.settings import OPERATIONAL
from pipelines.runners.settings import RunnerSettings

# What `train` may not hold: the ablation sets these for every arm.
SET_BY_THE_ABLATION = (
    "captions",
    "seed",
    "missing_captions",
    "threads",
    "allow_unknown_words",
)


class AblateSettings(RunnerSettings):
    """The declared experiment. Read the YAML file and you know the study."""

    arms: dict[str, dict[str, float]] = Field(
        {
            "alt": {"alt": 1.0},
            "short": {"short": 0.95, "alt": 0.05},
            "descriptive": {"descriptive": 0.95, "alt": 0.05},
        },
        description="Caption blend of each arm: name -> {kind: share}, shares sum to 1",
    )
    contrasts: tuple[tuple[str, str], ...] = Field(
        (("descriptive", "alt"), ("descriptive", "short"), ("short", "alt")),
        description="Pairs of arms that are declared before the run; all else is exploratory",
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="Training seeds; every arm trains once with each"
    )
    selection: str = Field("default", description="Selection of the dataset to train on")
    caption_sources: dict[str, str] = Field(
        {}, description="Kind -> who wrote it, where several captioners wrote that kind"
    )
    train: dict[str, Any] = Field(
        {"model": "world-small"}, description="Training settings that all arms share"
    )
    judge: str = Field(
        "world",
        description="world: the synthetic world's exact parser; clip: CLIP similarity; or a judge "
        "of your own as module:Class (examples/judge_of_your_own.py)",
    )
    world: Literal["small", "rich"] = Field("small", description="Richness of the judged world")
    prompts: str | None = Field(
        None,
        description="JSONL, CSV, Parquet or text of prompts (columns prompt, and prompt_form if "
        "there are several forms); for every judge but the world's",
    )
    scenes: int = Field(
        192, gt=0, description="Held-out scenes that the world judge asks for, in each prompt form"
    )
    exclude_scenes: str | None = Field(
        None, description="Parquet with a column scene: scenes that were trained on, not to ask for"
    )
    prompt_seed: int = Field(20_000, ge=0, description="Of the held-out scenes and their prompts")
    generation_seed: int = Field(0, ge=0, description="Of the noise; shared by all arms and seeds")
    primary_metric: str = Field(
        "object_hit", description="The metric that decides; set before the run"
    )
    primary_prompt_form: str = Field("descriptive", description="The prompt form that decides")
    clip_model: str = Field("ViT-B-32", description="open_clip model of the clip judge")
    clip_pretrained: str | None = Field(
        None, description="Tag or safetensors file of the clip judge's weights"
    )
    allow_unknown_words: bool = Field(
        False,
        description="Train although over 5% of the words of a caption kind or a form of the "
        "prompts are outside the models' vocabulary; without it the study is refused before a step",
        json_schema_extra=OPERATIONAL,
    )
    workers: int = Field(2, gt=0, description="Runs side by side", json_schema_extra=OPERATIONAL)
    cpus_per_run: int = Field(
        1, gt=0, description="CPU threads of one run", json_schema_extra=OPERATIONAL
    )
    gpus_per_run: float | None = Field(
        None,
        ge=0,
        description="GPUs of one run, where Ray shares them out; none = one if there is any",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="after")
    def _consistent(self) -> AblateSettings:
        for name, blend in self.arms.items():
            if not blend or abs(sum(blend.values()) - 1) > 1e-6 or min(blend.values()) < 0:
                raise ValueError(f"the shares of arm {name!r} must be positive and sum to 1")
        for pair in self.contrasts:
            for arm in pair:
                if arm not in self.arms:
                    raise ValueError(
                        f"contrast {list(pair)} names an arm {arm!r} that is not there"
                    )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("every seed may stand only once")
        for name in SET_BY_THE_ABLATION:
            if name in self.train:
                raise ValueError(f"train.{name} is set by the ablation itself; remove it")
        if self.judge != "world" and self.prompts is None:
            raise ValueError(f"the {self.judge} judge needs `prompts`, a file with prompts to draw")
        if self.judge == "clip":
            whole = self.clip_model.startswith(("hf-hub:", "local-dir:"))
            if self.clip_pretrained is None and not whole:
                raise ValueError(
                    f"the clip judge needs weights: give clip_pretrained, a tag or a safetensors "
                    f"file of {self.clip_model}, or a clip_model that brings its own"
                )
        if self.judge == "world" and self.prompts is not None:
            raise ValueError(
                "the world judge knows the scenes of its own prompts alone; leave `prompts` out, "
                "or take another judge"
            )
        if not self.arms:
            raise ValueError("a study needs at least one arm")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every caption kind that an arm uses, sorted."""
        return tuple(sorted({kind for blend in self.arms.values() for kind in blend}))
