"""The temperature of a CLIP model, from its weights file; the model itself is not loaded."""

from __future__ import annotations

import math

from curate.base.errors import ConfigError
from curate.base.weights import SAFE_SUFFIX
from curate.scoring.scorers.clip import Clip
from curate.scoring.scorers.clip_source import weights_file

_NAME = "logit_scale"  # log of 1 / temperature, in open_clip as in OpenAI's code


def temperature_of(clip: Clip) -> float:
    """The learned temperature of the contrastive loss: 0.01 of OpenAI's models.

    Raises:
        ConfigError: weights that are a pickle, or that hold none.
    """
    from safetensors import safe_open

    path = weights_file(clip.source, clip.pretrained)
    if path.suffix == SAFE_SUFFIX:
        with safe_open(str(path), framework="pt") as opened:
            if _NAME in opened.keys():  # noqa: SIM118, it is no mapping
                return math.exp(-float(opened.get_tensor(_NAME)))
    raise ConfigError(
        f"{path.name} is no safetensors file with a {_NAME}, so its temperature is not known; say "
        f"it, as in --neg-clip-loss 0.01 (that of OpenAI's models)."
    )
