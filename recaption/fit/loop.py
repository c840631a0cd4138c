"""The training of a captioner, from top to bottom: set-up, state, loop.

L = - sum_j log P(t_j | t_<j, prompt, image) over the caption's tokens alone (Betker et al. 2023,
section 2.1). Pre-training adds a contrastive loss of pictures and texts (CoCa, Yu et al. 2022):

    L = caption_weight * L_caption + contrastive_weight * L_contrastive

Order, changes of pictures and dropout are functions of (seed, step), so a killed run continues to
the same weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.base.errors import CaplabError
from curate.base.progress import progress as progress_bar
from curate.base.settings import precision_of
from recaption.fit.batches import IGNORED, Batch, Batches
from recaption.fit.model import ContrastiveHeads, Fitted
from recaption.fit.optimizer import FitOptimizer, rate_scale
from recaption.fit.settings import FitSettings
from recaption.fit.state import Progress, load_state, save_state


@dataclass(frozen=True)
class Measure:
    """Held-out figures after `step` steps: mean loss a token (nats), share of tokens right."""

    step: int
    loss: float
    token_accuracy: float


@dataclass(frozen=True)
class Training:
    """One training: its name, its pairs, for how long, and whether it is pre-training."""

    name: str
    batches: Batches
    held_out: Batches
    steps: int
    pretraining: bool = False


def train_captioner(
    fitted: Fitted,
    training: Training,
    settings: FitSettings,
    state_path: Path,
    on_checkpoint: Callable[[float, Measure], None],
) -> tuple[Progress, Measure]:
    """Train to the end, or from the state in `state_path` to there; `fitted` holds the result.

    Args:
        on_checkpoint: called with (share of the steps, held-out figures) while `fitted` holds the
            weights of that moment.

    Returns:
        The progress, and the held-out figures of the weights that `fitted` now holds.

    Raises:
        CaplabError: the loss is not finite.
    """
    # ---- set-up -------------------------------------------------------------------------------
    device = torch.device(next(fitted.model.parameters()).device)
    autocast = _autocast(settings, device)
    model = fitted.model
    modules = nn.ModuleDict({"captioner": model})
    heads = None
    if training.pretraining and settings.contrastive_weight:
        torch.manual_seed(settings.seed)
        heads = ContrastiveHeads(model.config.text_config.hidden_size).to(device)
        modules["contrast"] = heads
    optimizer = FitOptimizer(modules, settings)
    size, parts, steps = settings.batch_size, settings.accumulate, training.steps
    caption_weight = settings.caption_weight if training.pretraining else 1.0
    measured = {-(-steps * (i + 1) // settings.validations) for i in range(settings.validations)}
    kept = {} if training.pretraining else {math.ceil(s * steps): s for s in settings.checkpoints}
    held_out = training.held_out.in_order(4 * size)

    # ---- state --------------------------------------------------------------------------------
    state = Progress()
    best: dict[str, Tensor] = {}
    if state_path.exists():
        state, best = load_state(state_path, modules, optimizer)

    # ---- loop ---------------------------------------------------------------------------------
    clock = time.perf_counter()
    with (
        progress_bar(steps, training.name, "step", state.step) as bar,
        ThreadPoolExecutor(1, thread_name_prefix="batches") as pool,
    ):
        ahead = pool.submit(training.batches.step, state.step, size, parts)
        while state.step < steps and not state.stopped:
            step = state.step
            batches = ahead.result()
            ahead = pool.submit(training.batches.step, step + 1, size, parts)
            # Loss a token of the whole step, however it is cut into forward passes.
            tokens = sum(batch.tokens for batch in batches)
            torch.manual_seed((settings.seed << 32) + step)  # dropout
            model.train()
            mean = 0.0
            for batch in batches:
                batch = batch.to(device)
                with autocast():
                    logits, output = forward(model, batch)
                    nats = F.cross_entropy(
                        logits.float().flatten(0, 1),
                        batch.wanted.flatten(),
                        ignore_index=IGNORED,
                        reduction="sum",
                    )
                    loss = caption_weight * nats / tokens
                    if heads is not None:
                        contrast = contrastive_loss(model, heads, output, batch.wanted)
                        loss = loss + settings.contrastive_weight * contrast / parts
                loss.backward()
                mean += float(nats.detach()) / tokens
            scale = rate_scale(step, steps, settings.warmup_share)
            if not math.isfinite(optimizer.step(scale)):
                raise CaplabError(
                    f"The loss of {training.name} was not finite at step {step}; lower the "
                    f"learning rates or use precision fp32."
                )
            state.step += 1
            state.window_loss += mean
            state.window_steps += 1
            bar.update()

            if state.step in measured or state.step in kept:
                figures = measure(model, held_out, state.step, autocast, device)
                state.seconds, clock = (
                    state.seconds + time.perf_counter() - clock,
                    time.perf_counter(),
                )
                state.metrics.append(
                    {
                        "training": training.name,
                        "step": state.step,
                        "loss": state.window_loss / state.window_steps,
                        "held_out_loss": figures.loss,
                        "token_accuracy": figures.token_accuracy,
                        "learning_rate_scale": scale,
                        "seconds": state.seconds,
                    }
                )
                state.window_loss, state.window_steps = 0.0, 0
                bar.set_postfix_str(f"held-out loss {figures.loss:.4f}")
                state.stale += 1
                if figures.loss < state.best_loss:
                    state.best_loss, state.best_step, state.stale = figures.loss, state.step, 0
                    if settings.keep == "best":
                        best = {n: t.detach().cpu().clone() for n, t in model.state_dict().items()}
                state.stopped = bool(settings.patience) and state.stale >= settings.patience
                if state.step in kept:
                    on_checkpoint(kept[state.step], figures)
            if state.step % settings.resume_every == 0 or state.step == steps or state.stopped:
                save_state(state_path, modules, optimizer, best, state)

    # ---- the weights to keep ------------------------------------------------------------------
    kept_step = state.step
    if best:
        model.load_state_dict(best)
        kept_step = state.best_step
    return state, measure(model, held_out, kept_step, autocast, device)


def forward(model: Any, batch: Batch) -> tuple[Tensor, Any]:
    """Logits (B, L, vocabulary) that predict the caption's tokens, and the model's whole output."""
    length = batch.wanted.shape[1]
    output = model(**batch.inputs, use_cache=False, logits_to_keep=length + 1)
    return output.logits[:, -length - 1 : -1], output


def contrastive_loss(model: Any, heads: ContrastiveHeads, output: Any, wanted: Tensor) -> Tensor:
    """Symmetric InfoNCE over the batch (CLIP): every text against every picture.

    Texts are read by the language model alone and embedded at their end token, as CoCa embeds
    them at the class token behind the text.
    """
    known = wanted != IGNORED
    read = model.model.language_model(
        input_ids=wanted.masked_fill(~known, model.config.text_config.pad_token_id),
        attention_mask=known.long(),
        use_cache=False,
    ).last_hidden_state
    ends = known.sum(1) - 1
    text = F.normalize(
        heads.text(read[torch.arange(len(read), device=read.device), ends]).float(), dim=-1
    )
    tokens = output.image_hidden_states.reshape(len(wanted), -1, read.shape[-1])
    image = F.normalize(heads.image(tokens.mean(1)).float(), dim=-1)
    # CLIP caps the temperature's inverse at 100.
    similarity = heads.log_scale.clamp(max=math.log(100)).exp() * image @ text.T
    own = torch.arange(len(wanted), device=wanted.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


@torch.no_grad()
def measure(
    model: Any,
    held_out: list[Batch],
    step: int,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]],
    device: torch.device,
) -> Measure:
    """Loss a token and token accuracy, teacher-forced, on the held-out pairs."""
    model.eval()
    nats, right, tokens = 0.0, 0, 0
    for batch in held_out:
        batch = batch.to(device)
        with autocast():
            logits, _ = forward(model, batch)
        known = batch.wanted != IGNORED
        nats += float(
            F.cross_entropy(
                logits.float().flatten(0, 1),
                batch.wanted.flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            )
        )
        right += int(((logits.argmax(-1) == batch.wanted) & known).sum())
        tokens += int(known.sum())
    return Measure(step, nats / tokens, right / tokens)


def _autocast(
    settings: FitSettings, device: torch.device
) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    if precision_of(settings.precision, str(device)) == "fp32":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, torch.bfloat16)
