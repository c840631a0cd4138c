"""The training loop: set-up, state, loop, from top to bottom.

Noise, timesteps, data order, blend draws, dropout and initial weights are functions of (seed,
step) and never of the captions, so two arms of one seed see the same of everything but the text.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from curate.base.errors import CaplabError
from curate.base.files import atomic_path, fingerprint
from curate.base.progress import progress, tell
from curate.base.settings import device_of, dtype_of, precision_of
from train.captions import CaptionBank
from train.model import TextToImage, build_model, use_fast_attention
from train.objective import logit_normal_timesteps, loss_per_picture, noised
from train.optimizer import Optimizer, learning_rate_scale
from train.sample import Trained, from_uint8
from train.settings import ModelConfig, TrainSettings
from train.shards import DataOrder, TrainingSamples, held_out
from train.validation import Validation, write_grid

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_NOISE_STREAM = 6
# Two are enough: if the newest was cut short by a crash of the disk, the one before still stands.
KEPT_CHECKPOINTS = 2

METRICS = pa.schema(
    [
        ("step", pa.int64()),  # optimiser steps done
        ("loss", pa.float64()),  # mean over the steps since the row before
        ("gradient_norm", pa.float64()),  # of this step, before clipping
        ("learning_rate_scale", pa.float64()),
        ("skipped_steps", pa.int64()),  # non-finite ones, so far
        ("images_per_second", pa.float64()),  # wall clock, of training alone
        ("cpu_seconds", pa.float64()),  # of this process, training alone, so far
        ("seconds", pa.float64()),  # wall clock, training alone, so far
    ]
)


@dataclass
class Progress:
    """All that must survive a restart beside the optimiser's tensors."""

    step: int = 0
    skipped: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    window_loss: float = 0.0
    """Sum of the losses since the last row of the metrics, and how many they are."""
    window_steps: int = 0


@dataclass(frozen=True)
class LoopResult:
    """What a finished loop hands over: the averaged weights in a model, and the record.

    The model is float32 whatever was computed in: its weights are the averages, not rounded.
    """

    trained: Trained
    progress: Progress
    bank: CaptionBank
    order: DataOrder


def train_loop(
    samples: TrainingSamples,
    settings: TrainSettings,
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    stop_after: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = tell,
) -> LoopResult:
    """Train for `settings.steps` steps, or from the newest checkpoint in `out` to there.

    Args:
        stop_after: leave after this step with a checkpoint, as if interrupted.
        on_step: called with (steps done, steps in all) after every step, in place of a bar.
        say: called with a sentence where a checkpoint cannot be used.

    Raises:
        CaplabError: more than `settings.max_skipped_steps` steps were not finite.
    """
    # ---- set-up -------------------------------------------------------------------------------
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = torch.device(device_of(settings.device))
    dtype = dtype_of(precision_of(settings.precision, settings.device, matrix_tiles=True))

    apart, shown = held_out(samples.keys, settings.validation_share, settings.validation_samples)
    training = samples.take(np.flatnonzero(~apart))
    images = torch.from_numpy(training.images).to(device)
    bank = CaptionBank(
        training.keys,
        training.captions,
        settings.captions,
        tokenizer,
        config.text_tokens,
        settings.caption_dropout,
        settings.seed,
    )
    order = DataOrder(len(training), settings.batch_size, settings.seed)
    validation = Validation(samples.take(shown), tokenizer, config, settings)

    # ---- state --------------------------------------------------------------------------------
    model = build_model(config, len(tokenizer), settings.seed).to(device)
    optimizer = Optimizer(model, settings)  # before the cast: its master weights are float32
    model.to(dtype)
    use_fast_attention(model, device)
    averaged = Trained(copy.deepcopy(model).requires_grad_(False), tokenizer, settings)
    mark = fingerprint(
        {"settings": settings.identity(), "model": config.resolved(), "keys": training.keys}
    )
    state = load_checkpoint(out, optimizer, mark, say) or Progress()

    # ---- loop ---------------------------------------------------------------------------------
    clock, cpu_clock = time.perf_counter(), time.process_time()
    window_clock = saved = clock
    quiet = on_step is not None
    with progress(settings.steps, "training", "step", state.step, disable=quiet) as bar:
        while state.step < settings.steps:
            step = state.step
            rows, epoch = order.batch(step)
            caption = bank.draw(rows, epoch)
            tokens = torch.from_numpy(caption.tokens).to(device)
            mask = torch.from_numpy(caption.mask).to(device, dtype)
            x0 = from_uint8(images[torch.from_numpy(rows).to(device)])
            noise, t = (
                tensor.to(device) for tensor in step_noise(settings, step, config.resolution)
            )

            x_t = noised(x0, noise, t)
            output = model(x_t.to(dtype), t, tokens, mask)
            loss = loss_per_picture(
                output, x0, noise, t, settings.prediction, settings.loss_weighting
            ).mean()
            model.zero_grad(set_to_none=True)
            loss.backward()
            scale = learning_rate_scale(step, settings)
            norm = optimizer.step(step, scale)

            state.step += 1
            if math.isfinite(norm):
                state.window_loss += float(loss.detach())
                state.window_steps += 1
            else:
                state.skipped += 1
                if state.skipped > settings.max_skipped_steps:
                    raise CaplabError(
                        f"{state.skipped} training steps were not finite, the last at step {step}; "
                        f"lower the learning rates or use precision fp32."
                    )

            done = state.step
            last = done == settings.steps
            bar.update()
            if on_step is not None:
                on_step(done, settings.steps)
            if done % settings.log_every == 0 or last:
                now, cpu_now = time.perf_counter(), time.process_time()
                state.seconds += now - clock
                state.cpu_seconds += cpu_now - cpu_clock
                clock, cpu_clock = now, cpu_now
                since = done - (state.metrics[-1]["step"] if state.metrics else 0)
                mean_loss = (
                    state.window_loss / state.window_steps if state.window_steps else math.nan
                )
                rate = since * settings.batch_size / (now - window_clock)
                state.metrics.append(
                    {
                        "step": done,
                        "loss": mean_loss,
                        "gradient_norm": norm,
                        "learning_rate_scale": scale,
                        "skipped_steps": state.skipped,
                        "images_per_second": rate,
                        "cpu_seconds": state.cpu_seconds,
                        "seconds": state.seconds,
                    }
                )
                bar.set_postfix_str(f"loss {mean_loss:.4f}, {rate:.0f} images/s")
                state.window_loss, state.window_steps, window_clock = 0.0, 0, now

            validate = _due(done, settings.validate_every, last) and settings.validation_samples
            grid = _due(done, settings.grid_every, last) and settings.grid_size
            checkpoint = _due(done, settings.checkpoint_every, last) or done == stop_after
            minutes = settings.checkpoint_minutes
            checkpoint |= 0 < 60 * minutes <= time.perf_counter() - saved
            if validate or grid or checkpoint:
                paused, cpu_paused = time.perf_counter(), time.process_time()
                if validate or grid:
                    load_average(averaged, optimizer)
                if validate:
                    state.validation += validation.rows(averaged, done)
                if grid:
                    pictures = validation.grid(averaged)
                    write_grid(out / "grids" / f"step-{done:06d}.png", pictures)
                if checkpoint:
                    save_checkpoint(out, optimizer, state, mark)
                    saved = time.perf_counter()
                # Looking at the model is not training it: the clocks stand still meanwhile.
                away = time.perf_counter() - paused
                clock, window_clock = clock + away, window_clock + away
                cpu_clock += time.process_time() - cpu_paused
            if done == stop_after:
                break

    # A fresh model, since a cast would keep what the precision rounded (position embeddings too).
    exact = TextToImage(config, len(tokenizer)).to(device).requires_grad_(False).eval()
    trained = Trained(exact, tokenizer, settings)
    load_average(trained, optimizer)
    return LoopResult(trained, state, bank, order)


def step_noise(settings: TrainSettings, step: int, resolution: int) -> tuple[Tensor, Tensor]:
    """Noise (B, 3, R, R) and timesteps (B,) of a step, on the CPU, from (seed, step) alone."""
    batch = settings.batch_size
    seed = np.random.SeedSequence([settings.seed, _NOISE_STREAM, step]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(seed[0]) >> 1)
    noise = torch.randn((batch, 3, resolution, resolution), generator=generator)
    t = logit_normal_timesteps(
        torch.randn(batch, generator=generator),
        torch.rand((2, batch), generator=generator),
        settings.timestep_mean,
        settings.timestep_std,
        settings.timestep_uniform_share,
    )
    return noise, t


@torch.no_grad()
def load_average(averaged: Trained, optimizer: Optimizer) -> None:
    """Copy the averaged weights into the model that is looked at and sampled."""
    for name, parameter in averaged.model.named_parameters():
        parameter.copy_(optimizer.ema[name])


def save_checkpoint(out: Path, optimizer: Optimizer, state: Progress, mark: str) -> None:
    """Write the state as one safetensors file, atomically, and the tables beside it.

    Args:
        mark: fingerprint of what the run is; a checkpoint of another one is not loaded.
    """
    from safetensors.torch import save_file

    write_tables(out, state)
    tensors = {name: tensor.contiguous() for name, tensor in optimizer.state_dict().items()}
    with atomic_path(out / "checkpoints" / f"{state.step:08d}.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"progress": json.dumps(asdict(state)), "run": mark})
    for old in checkpoints(out)[:-KEPT_CHECKPOINTS]:
        old.unlink()


def load_checkpoint(
    out: Path, optimizer: Optimizer, mark: str, say: Callable[[str], None]
) -> Progress | None:
    """Restore the newest usable checkpoint of `out` into `optimizer`; None where there is none.

    One that is damaged or of another run is told, and set aside as NAME.unusable so that it is
    not counted among those that are kept.
    """
    for path in reversed(checkpoints(out)):
        try:
            return _restore(path, optimizer, mark)
        except CheckpointError as error:
            path.rename(path.with_suffix(".unusable"))
            before = checkpoints(out)
            say(
                f"The checkpoint {path} is not used ({error}); training goes on from "
                f"{f'step {int(before[-1].stem)}' if before else 'the start'}."
            )
    return None


class CheckpointError(CaplabError):
    """A checkpoint that cannot be continued from."""


def _restore(path: Path, optimizer: Optimizer, mark: str) -> Progress:
    """Load a checkpoint whole or not at all; raises CheckpointError."""
    from safetensors import SafetensorError, safe_open

    device = str(next(iter(optimizer.master.values())).device)
    try:
        with safe_open(str(path), framework="pt", device=device) as opened:
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            note = opened.metadata() or {}
        progress = Progress(**json.loads(note["progress"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"it is damaged: {error}") from error
    if note.get("run") != mark:
        raise CheckpointError("it is of other settings or other data")
    try:
        optimizer.load_state_dict(state)
    except KeyError as error:
        raise CheckpointError(f"it is of another model: {error}") from error
    return progress


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((out / "checkpoints").glob("[0-9]*.safetensors"))


def write_tables(out: Path, state: Progress) -> None:
    """metrics.parquet and, where there is any, validation.parquet."""
    from train.validation import VALIDATION

    tables = [("metrics", METRICS, state.metrics), ("validation", VALIDATION, state.validation)]
    for name, schema, rows in tables:
        with atomic_path(out / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


def _due(done: int, every: int, last: bool) -> bool:
    return last or (every > 0 and done % every == 0)
