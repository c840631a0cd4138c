"""Draw pictures from prompts: Euler steps along the flow, with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_record
from curate.base.settings import Precision, device_of, dtype_of, precision_of
from curate.base.weights import load_state_dict
from train.captions import encode
from train.model import TextToImage, use_fast_attention
from train.objective import euler_step, predicted_x0, sampling_timesteps
from train.settings import ModelConfig, TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Trained:
    """A model that is ready to sample, with the tokenizer and settings that it was trained with."""

    model: TextToImage
    tokenizer: PreTrainedTokenizerFast
    settings: TrainSettings

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return next(self.model.parameters()).dtype


def load_trained(run: Path | str, device: str = "auto", precision: Precision = "auto") -> Trained:
    """The averaged weights of a finished run.

    Raises:
        ConfigError: there is no such device, or it cannot compute in that precision.
        DatasetError: no finished run is there, or its weights are not those of its model.
    """
    from transformers import AutoTokenizer

    run = Path(run)
    weights = run / "ema.safetensors"
    if not weights.exists():
        raise DatasetError(f"{run} holds no finished training run; run `caplab train` first.")
    record = read_record(run / "run.json").get("identity", {})
    try:
        config = ModelConfig(**record["model_config"])
        # What the run was told stands in its record, resolved; the preset may have changed since.
        settings = TrainSettings.model_validate(record["settings"])
        tokenizer = AutoTokenizer.from_pretrained(run / "tokenizer")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{run} lacks a part of its run.json or tokenizer/ ({str(error).partition(chr(10))[0]})"
            f". Delete the run's directory and train it again."
        ) from error
    where = torch.device(device_of(device))
    dtype = dtype_of(precision_of(precision, device, matrix_tiles=True))
    model = TextToImage(config, len(tokenizer))
    _load_weights(model, weights)
    model.to(where, dtype).eval()
    use_fast_attention(model, where)
    return Trained(model, tokenizer, settings)


@torch.no_grad()
def _load_weights(model: TextToImage, path: Path) -> None:
    """Fill every parameter from `path`; what is computed from the config is not stored there."""
    try:
        stored = load_state_dict(path)
    except ConfigError as error:
        raise DatasetError(f"{error} Delete the run's directory and train it again.") from error
    own = dict(model.named_parameters())
    wrong = [
        *(f"{name} is missing" for name in own.keys() - stored.keys()),
        *(f"{name} is unexpected" for name in stored.keys() - own.keys()),
        *(
            f"{name} is {tuple(stored[name].shape)} and should be {tuple(own[name].shape)}"
            for name in own.keys() & stored.keys()
            if stored[name].shape != own[name].shape
        ),
    ]
    if wrong:
        raise DatasetError(
            f"{path} does not hold the weights of its model: of {len(own)} parameters "
            f"{len(wrong)} do not fit, such as: {min(wrong)}."
        )
    for name, parameter in own.items():
        parameter.copy_(stored[name])


def generate(
    run_or_model: Trained | Path | str,
    prompts: Sequence[str],
    seed: int,
    guidance_scale: float | None = None,
    steps: int | None = None,
    shift: float | None = None,
    batch_size: int = 64,
) -> NDArray[np.uint8]:
    """One picture a prompt: uint8 (N, R, R, 3), sRGB.

    The noise of prompt i comes from a generator seeded with seed + i alone, so a picture does not
    hang on the batch size (but for the last bits of floating point) nor on the other prompts.
    Cost: 2 * steps evaluations of the network a picture (steps, where the scale is 1).

    Args:
        guidance_scale, steps, shift: of the sampler; None = as the run's settings say.
    """
    trained = run_or_model if isinstance(run_or_model, Trained) else load_trained(run_or_model)
    side = trained.model.config.resolution
    if not prompts:
        return np.empty((0, side, side, 3), np.uint8)
    noise = torch.stack([initial_noise(seed + i, side) for i in range(len(prompts))])
    tokens, _ = encode(trained.tokenizer, prompts, trained.model.config.text_tokens)
    settings = trained.settings
    parts = [
        to_uint8(
            sample(
                trained,
                torch.from_numpy(tokens[start : start + batch_size].astype(np.int64)),
                noise[start : start + batch_size],
                settings.guidance_scale if guidance_scale is None else guidance_scale,
                settings.sampling_steps if steps is None else steps,
                settings.sampling_shift if shift is None else shift,
            )
        )
        for start in range(0, len(prompts), batch_size)
    ]
    return np.concatenate(parts)


def initial_noise(seed: int, resolution: int) -> Tensor:
    """Standard normal noise (3, R, R), drawn on the CPU so that every device starts alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((3, resolution, resolution), generator=generator)


@torch.inference_mode()
def sample(
    trained: Trained,
    tokens: Tensor,
    noise: Tensor,
    guidance_scale: float,
    steps: int,
    shift: float,
) -> Tensor:
    """Pictures (B, 3, R, R) float32, about -1..1, from tokens (B, T) and noise (B, 3, R, R).

    Guidance is Ho and Salimans 2022 (arXiv 2207.12598), on the prediction: empty + scale *
    (caption - empty). The text is encoded once, not once a step.
    """
    device, dtype = trained.device, trained.dtype
    batch = len(tokens)
    if guidance_scale != 1:
        empty, _ = encode(trained.tokenizer, [""], tokens.shape[1])
        unconditional = torch.from_numpy(empty.astype(np.int64)).expand(batch, -1)
        tokens = torch.cat([tokens, unconditional])
    tokens = tokens.to(device)
    mask = (tokens != trained.tokenizer.pad_token_id).to(dtype)
    text = trained.model.encode_text(tokens, mask)
    x = noise.to(device)
    timesteps = sampling_timesteps(steps, shift).tolist()
    for t, t_next in pairwise(timesteps):
        times = torch.full((len(tokens),), t, device=device)
        doubled = x.repeat(len(tokens) // batch, 1, 1, 1).to(dtype)
        output = trained.model.denoise(doubled, times, text, mask).float()
        if guidance_scale != 1:
            conditional, unconditional = output.chunk(2)
            output = unconditional + guidance_scale * (conditional - unconditional)
        x0 = predicted_x0(output, x, times[:batch], trained.settings.prediction)
        x = euler_step(x, x0, t, t_next)
    return x


def to_uint8(pictures: Tensor) -> NDArray[np.uint8]:
    """(N, 3, R, R) in -1..1 to uint8 (N, R, R, 3); what lies outside is clipped."""
    levels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).cpu().numpy())


def from_uint8(images: Tensor) -> Tensor:
    """uint8 (N, R, R, 3) to float32 (N, 3, R, R) in -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1
