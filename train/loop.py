"""The training loop: set-up, state, loop, from top to bottom.

Noise, times, data order, blend draws, dropout and initial weights are functions of (seed, step)
and never of the captions, so two arms of one seed see the same of everything but the text. They
are functions of the whole batch and not of a rank's share, so any number of processes makes the
same steps, but for rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curate.base.errors import CaplabError
from curate.base.files import write_json
from curate.base.progress import progress, tell
from curate.base.settings import device_of, dtype_of, precision_of
from train.backbones import (
    compile_blocks,
    flops_per_picture,
    is_hidden_matrix,
    use_activation_checkpointing,
    use_fast_attention,
)
from train.checkpoints import Checkpoints, Progress
from train.distributed import ALONE, Ranks, gradients_meet, shard, wrapped
from train.meter import Clock, Rate, datasheet_rate, matmul_rate, open_trackers
from train.model import TextToImage, Trained
from train.model_settings import ModelConfig
from train.optimizer import Optimizer, before_cooldown, learning_rate_scale
from train.protocols import Batch, Latents, Objective, TextFeatures, Tokens
from train.sample import from_uint8
from train.settings import TrainSettings, seed_of
from train.validation import Validation, on_device, write_grid

if TYPE_CHECKING:
    from train.data.loader import TrainingData

_NOISE_STREAM = 6


def train_loop(
    model: TextToImage,
    make_model: Callable[[], TextToImage],
    data: TrainingData,
    settings: TrainSettings,
    config: ModelConfig,
    out: Path,
    mark: str,
    ranks: Ranks = ALONE,
    stop_after: int | None = None,
    on_step: Callable[[int, int, str], None] | None = None,
    say: Callable[[str], None] = tell,
) -> tuple[Trained, Progress]:
    """Train for `settings.steps` steps, or from the newest checkpoint in `out` to there.

    Args:
        model: untrained, on the CPU; it is taken over.
        make_model: makes the same once more, for the result.
        mark: fingerprint of what the run is; a checkpoint of another one is not loaded.
        stop_after: leave after this step with a checkpoint, as if interrupted.
        on_step: called with (steps done, steps in all, loss and speed of the last row of the
            metrics in words) after every step, in place of a bar.
        say: called with a sentence that the person should read.

    Returns:
        The averaged weights in a model of `make_model`, float32 on the CPU, not rounded whatever
        was computed in; and the record.

    Raises:
        CaplabError: more than `settings.max_skipped_steps` steps were not finite, or the weights
            are not when they are to be kept.
    """
    from train.data.receipt import ReceiptWriter

    # ---- set-up -------------------------------------------------------------------------------
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = ranks.device(device_of(settings.device))
    dtype = dtype_of(precision_of(settings.precision, settings.device, matrix_tiles=True))
    parts, share = settings.gradient_accumulation_steps, ranks.share(settings)
    fsdp = ranks.world > 1 and settings.strategy == "fsdp"

    # ---- state --------------------------------------------------------------------------------
    model.to(device)
    model.latents.to(device)
    data = data.keeping_text(model.text, settings, device)
    objective, latents = model.objective, model.latents
    if fsdp:
        shard(model, dtype)
        model.computes_in = dtype
    optimizer = Optimizer(model.trained_parameters(), settings, is_hidden_matrix)
    if not fsdp:
        model.to(dtype)  # after the optimiser, whose master weights are float32
    if parts > 1 and ranks.world == 1:
        # Parts are added up in float32. FSDP does so by itself; DDP adds in the model's dtype.
        for parameter in optimizer.parameters.values():
            parameter.grad_dtype = torch.float32
    use_fast_attention(model.backbone, device, model.patches(config.resolution))
    if settings.activation_checkpointing:
        use_activation_checkpointing(model.backbone)
    compiled = settings.compile == "blocks"
    compiled |= settings.compile == "auto" and device.type == "cuda"
    if compiled:
        compile_blocks(model.backbone)
    called = wrapped(model, config, ranks, settings.strategy)
    checkpoints = Checkpoints(out, mark, settings, ranks, say)
    state = checkpoints.load(optimizer) or Progress()
    state.parameters = sum(p.numel() for p in optimizer.parameters.values())
    began, turn = state.step, before_cooldown(settings)
    receipt = ReceiptWriter(out / "receipt", ranks.rank, ranks.world, settings.batch_size)
    receipt.truncate(state.step)
    # Sum of the losses since the last row of the metrics and how many they are, on the device.
    window = torch.tensor(
        [state.window_loss, state.window_steps], dtype=torch.float64, device=device
    )

    # ---- what is looked at --------------------------------------------------------------------
    validation = Validation(
        Trained(model, settings, config), *data.validation(), settings.batch_size
    )
    trackers = open_trackers(out, settings) if ranks.first else []
    side = config.resolution // latents.factor
    rate = Rate(
        flops_per_picture(model.backbone, side, side, model.text.tokens),
        matmul_rate(device, dtype),
        datasheet_rate(device, dtype),
    )

    # ---- loop ---------------------------------------------------------------------------------
    clock = Clock()
    quiet, pace = on_step is not None or not ranks.first, ""
    batches: Any = data.batches(state.step, settings.steps, ranks.rank, ranks.world, parts)
    with (
        checkpoints.telling_an_end(state),
        closing(batches),
        progress(settings.steps, "training", "step", state.step, disable=quiet) as bar,
    ):
        for step, micro_batches in enumerate(batches, state.step):
            noise = times = None
            loss_of_step = torch.zeros((), device=device)
            for part, batch in enumerate(micro_batches):
                x0 = clean(batch, latents, device)
                # Compiled blocks would be compiled anew for every length.
                told = batch.text if compiled else model.without_padding(batch.text)
                if noise is None or times is None:
                    noise, times = step_noise(settings, objective, step, x0.shape[1:], device)
                first = (ranks.rank * parts + part) * share
                own_noise, t = noise[first : first + share], times[first : first + share]
                x_t = objective.noised(x0, own_noise, t)
                with gradients_meet(called, ranks, settings.strategy, part == parts - 1):
                    output = called(
                        objective.model_input(x_t, t).to(dtype),
                        objective.model_time(t),
                        text_of(told, device, dtype),
                        batch.size_ids.to(device, non_blocking=True),
                        batch.conditions.to(device, non_blocking=True),
                    )
                    losses = objective.loss(output, x0, own_noise, x_t, t)
                    weights = batch.loss_weight.to(device, non_blocking=True)
                    loss = (losses * weights).mean() / parts
                    loss.backward()
                loss_of_step += loss.detach()
                receipt.add(step, batch)
            scale = learning_rate_scale(step, settings)
            norm = optimizer.step(step, scale)

            finite = torch.isfinite(norm)
            window += torch.stack([torch.where(finite, loss_of_step, 0), finite])
            state.step = done = step + 1
            last = done == settings.steps
            bar.update()
            logging = due(done, settings.log_every, last)
            checkpoint = due(done, settings.checkpoint_every, last) or done in (stop_after, turn)
            if logging or checkpoint:
                overdue = 0 < 60 * settings.checkpoint_minutes <= time.perf_counter() - clock.saved
                # The one place, but for what is done seldom, where the host waits for the device.
                looked = torch.stack([*window, norm, optimizer.skipped, window.new_tensor(overdue)])
                loss_sum, counted, gradient_norm, skipped, asked = ranks.mean(looked).tolist()
                state.window_loss, state.window_steps = loss_sum, round(counted)
                state.skipped = round(skipped)
                checkpoint |= asked > 0
                if state.skipped > settings.max_skipped_steps:
                    raise CaplabError(
                        f"{state.skipped} training steps were not finite, the last at or before "
                        f"step {step}; lower the learning rates or use precision fp32."
                    )
                if checkpoint and ranks.mean(optimizer.finite()).item() != 1:
                    raise CaplabError(
                        f"The weights are not finite after step {done}; lower the learning rates."
                    )
            if logging:
                wall, cpu = clock.lap()
                state.seconds += wall
                state.cpu_seconds += cpu
                since = done - max(began, state.metrics[-1]["step"] if state.metrics else 0)
                speed = since * settings.batch_size / wall
                row = {
                    "step": done,
                    "loss": state.window_loss / state.window_steps
                    if state.window_steps
                    else math.nan,
                    "gradient_norm": gradient_norm,
                    "learning_rate_scale": scale,
                    "skipped_steps": state.skipped,
                    "images_per_second": speed,
                    "cpu_seconds": state.cpu_seconds,
                    "seconds": state.seconds,
                    **rate.row(speed, ranks.world),
                }
                state.metrics.append(row)
                pace = f"loss {row['loss']:.4f}, {speed:,.0f} pictures/s, MFU {row['mfu']:.0%}"
                bar.set_postfix_str(pace)
                for tracker in trackers:
                    tracker.numbers(
                        done, {n: v for n, v in row.items() if n != "step" and v is not None}
                    )
                state.window_loss, state.window_steps = 0.0, 0
                window.zero_()
            if on_step is not None and ranks.first:
                on_step(done, settings.steps, pace)

            validate = due(done, settings.validate_every, last) and validation.count
            grid = due(done, settings.grid_every, last) and settings.grid_size
            if validate or grid or checkpoint:
                with clock.stopped():
                    if validate:
                        with optimizer.averaged():
                            state.validation += validation.rows(done)
                    if checkpoint:
                        receipt.flush()
                        checkpoints.save(optimizer, state)
                        if ranks.first:
                            write_tables(out, state)
                        clock.saved = time.perf_counter()
                    if grid:
                        draw_grid(validation, optimizer, out, done, ranks)
            if done == stop_after:
                break
        if began == settings.steps and settings.grid_size:
            # It was stopped behind its last checkpoint.
            draw_grid(validation, optimizer, out, began, ranks)

    for tracker in trackers:
        tracker.close()
    average = {name: tensor.cpu() for name, tensor in optimizer.average().items()}
    del model, called, optimizer, validation
    # A fresh model, since a cast would keep what the precision rounded (position embeddings too).
    exact = make_model()
    with torch.no_grad():
        for name, parameter in exact.trained_parameters().items():
            if ranks.first:  # the others have not gathered what is spread
                parameter.copy_(average[name])
    return Trained(exact.requires_grad_(False), settings, config), state


def draw_grid(
    validation: Validation, optimizer: Optimizer, out: Path, done: int, ranks: Ranks
) -> None:
    """Write the grid of a step, by the averaged weights, and its prompts in the grid's order.

    All ranks draw, the first one writes.
    """
    with optimizer.averaged():
        pictures = validation.grid()
    if ranks.first:
        write_grid(out / "grids" / f"step-{done:06d}.png", pictures)
        write_json(out / "grids" / "prompts.json", validation.prompts)


def step_noise(
    settings: TrainSettings,
    objective: Objective,
    step: int,
    shape: torch.Size,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Noise (B, C, h, w) and times (B,) of a step's whole batch, from (seed, step) alone.

    Drawn where `settings.noise_on` says: a GPU's numbers are others than a CPU's.
    """
    batch = settings.batch_size
    entropy = [seed_of(settings, "noise"), _NOISE_STREAM, step]
    seed = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    where = device if settings.noise_on == "device" else torch.device("cpu")
    generator = torch.Generator(where).manual_seed(int(seed[0]) >> 1)
    noise = torch.randn((batch, *shape), generator=generator, device=where)
    normal = torch.randn(batch, generator=generator, device=where)
    uniform = torch.rand((2, batch), generator=generator, device=where)
    return noise.to(device), objective.times(normal, uniform).to(device)


def clean(batch: Batch, latents: Latents, device: torch.device) -> Tensor:
    """x0 (b, C, h, w) float32: cached latents, or the batch's pictures as latents."""
    x = batch.x.to(device, non_blocking=True)
    if x.dtype != torch.uint8:
        return x.float()
    with torch.no_grad():
        return latents.encode(from_uint8(x))


def text_of(
    told: Tokens | TextFeatures, device: torch.device, dtype: torch.dtype
) -> Tokens | TextFeatures:
    """What the model is told, on its device: tokens, or features in its dtype."""
    if isinstance(told, TextFeatures):
        return on_device(told, device, dtype)
    return {name: ids.to(device, non_blocking=True) for name, ids in told.items()}


def write_tables(out: Path, state: Progress) -> None:
    """metrics.parquet and validation.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.base.files import atomic_path

    real, whole_number = pa.float64(), pa.int64()
    metrics = {
        "step": whole_number,  # optimiser steps done
        "loss": real,  # mean over the steps since the row before
        "gradient_norm": real,  # of this step, before clipping
        "learning_rate_scale": real,
        "skipped_steps": whole_number,  # non-finite ones, so far
        "images_per_second": real,  # wall clock, of training alone, of all processes
        "cpu_seconds": real,  # of this process, training alone, so far
        "seconds": real,  # wall clock, training alone, so far
        "teraflops": real,  # of the network, as if texts filled their window, a second and device
        "mfu": real,  # teraflops over those of a large matmul on this device
        "mfu_datasheet": real,  # over those that the maker names
    }
    looked = {
        "step": whole_number,
        "caption_kind": pa.string(),  # "empty" = no caption
        "timestep": real,  # in the objective's own unit
        "loss": real,
    }
    tables = [("metrics", metrics, state.metrics), ("validation", looked, state.validation)]
    for name, schema, rows in tables:
        with atomic_path(out / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(schema.items()))), temporary)


def due(done: int, every: int, last: bool) -> bool:
    """Whether what is done every so many steps, and at the end, is done now."""
    return last or (every > 0 and done % every == 0)
