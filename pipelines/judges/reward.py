"""Reward models: how much people would like the picture, as a model learnt it from their choices.

PickScore and any other model of transformers with CLIP's two towers runs in this process: its
logit scale times the cosine (Kirstain et al. 2023, arXiv:2305.01569). Reward models that need
packages of their own run as a program in their own environment: the protocol stands in
pipelines.judges.rewards.program, and published.py beside it is such a program for some by name.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from curate.base.errors import ConfigError
from curate.base.files import sha256_file
from curate.base.settings import OPERATIONAL, Settings, device_of
from pipelines.judges.asked import READ_LIMIT, Against, texts_of
from pipelines.judges.models import found
from pipelines.judges.protocol import Judge, Pictures
from pipelines.judges.rewards.program import scored_by

if TYPE_CHECKING:
    import pyarrow as pa

BY_NAME = ("imagereward", "hpsv2", "hpsv3", "q-align")
_PROGRAM = Path(__file__).with_name("rewards") / "published.py"


class RewardOptions(Settings):
    """Which reward model, and where it runs."""

    model: str = Field(
        "yuvalkirstain/PickScore_v1",
        description="Hub id or folder of a model with CLIP's two towers, run in this process; or "
        f"{', '.join(BY_NAME)}, run by `python`.",
    )
    revision: str = Field("main", description="Hub branch, tag or commit of a model run here.")
    python: str = Field(
        "", description="Interpreter of the environment that has the package of a model by name."
    )
    command: str = Field(
        "",
        description="A program of your own in place of these, as in `/envs/x/bin/python score.py`; "
        "the folder with pictures and prompts follows as its last argument.",
    )
    against: Against = Field(
        "intent", description="intent (where it is a text, else the prompt) or prompt."
    )
    batch_size: int = Field(
        32,
        ge=1,
        description="Pictures a forward pass of a model run here.",
        json_schema_extra=OPERATIONAL,
    )
    timeout: float = Field(
        3600.0,
        gt=0,
        description="Seconds that a program may take for one call.",
        json_schema_extra=OPERATIONAL,
    )

    @model_validator(mode="after")
    def _consistent(self) -> RewardOptions:
        if self.command and self.python:
            raise ValueError("give command or python, not both")
        if self.model in BY_NAME and not (self.python or self.command):
            raise ValueError(f"{self.model} needs python, the interpreter that has its package")
        if self.python and self.model not in BY_NAME:
            raise ValueError(f"python runs {', '.join(BY_NAME)}; give your own program as command")
        return self

    @property
    def program(self) -> list[str]:
        """The program and its first arguments; empty where the model runs in this process."""
        if self.python:
            return [self.python, str(_PROGRAM), self.model]
        return shlex.split(self.command)


class RewardJudge(Judge):
    """One number a picture, of which more is better; its scale is the model's own."""

    Options = RewardOptions
    options: RewardOptions
    metrics = ("reward",)
    limits = (
        "A reward model learnt what its raters liked: style, saturation and people weigh as much "
        "as doing what was asked, and a difference in it is no difference in alignment.",
        "Its scale has no unit; results compare under one reward model only.",
        READ_LIMIT,
    )

    def __init__(self, options: RewardOptions, device: str) -> None:
        super().__init__(options, device)
        self._identity: dict[str, Any] = {}
        if not options.program:
            self._towers = Towers(options, device)
            self._identity = {"model": self._towers.digest}
        else:
            if shutil.which(options.program[0]) is None:
                raise ConfigError(f"The judge's program {options.program[0]} is not there.")
            # The program's own files are part of what scores; its environment cannot be known.
            files = [Path(part) for part in options.program[1:] if Path(part).is_file()]
            self._identity = {path.name: sha256_file(path) for path in files}

    def identity(self) -> dict[str, Any]:
        return self._identity

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        texts = texts_of(asked, self.options.against)
        if self.options.program:
            timeout = self.options.timeout
            return {"reward": scored_by(self.options.program, pictures, texts, timeout)}
        return {"reward": self._towers.score(pictures, texts)}


class Towers:
    """A model of transformers that embeds pictures and texts, as CLIP does."""

    def __init__(self, options: RewardOptions, device: str) -> None:
        """Load it, safetensors only.

        Raises:
            ConfigError: it does not load, or has no logit scale.
        """
        import torch
        from transformers import AutoModel, AutoProcessor

        folder, self.digest = found("reward model", options.model, options.revision)
        self._batch_size = options.batch_size
        self._device = torch.device(device_of(device))
        try:
            self._processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
            said = str(error).strip().splitlines()[0]
            raise ConfigError(f"{folder} does not load as a reward model ({said}).") from error
        if not hasattr(model, "logit_scale"):
            raise ConfigError(f"{folder} has not CLIP's two towers; run it as a command.")
        self._model = model.eval().to(self._device)

    def score(self, pictures: Pictures, texts: list[str]) -> NDArray[np.float64]:
        """(N,): logit scale times the cosine of picture and text."""
        import torch
        from PIL import Image

        scores = []
        for start in range(0, len(texts), self._batch_size):
            stop = start + self._batch_size
            inputs = self._processor(
                text=texts[start:stop],
                images=[Image.fromarray(picture) for picture in pictures[start:stop]],
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                made = self._model(**inputs)
                image, text = (
                    torch.nn.functional.normalize(part.double(), dim=-1)
                    for part in (made.image_embeds, made.text_embeds)
                )
                scale = self._model.logit_scale.double().exp()
                scores.append((scale * (image * text).sum(-1)).cpu().numpy())
        return np.concatenate(scores) if scores else np.empty(0)
