"""The training of a captioner: transformers' Trainer on our batches, losses and held-out figures.

L = - sum_j log P(t_j | t_<j, prompt, image) over the caption's tokens alone (Betker et al. 2023,
section 2.1). Pre-training adds a contrastive loss of pictures and texts (CoCa, Yu et al. 2022):

    L = caption_weight * L_caption + contrastive_weight * L_contrastive

Order and changes of pictures are functions of (seed, step), and a checkpoint holds the generator
that dropout draws from, so a killed run continues to the same weights.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)
from transformers.trainer_utils import rotate_checkpoints

from curate.base.errors import CaplabError
from curate.base.progress import progress as progress_bar
from curate.base.settings import dtype_of, precision_of
from recaption.fit.batches import Batch, Batches
from recaption.fit.model import ContrastiveHeads, Fitted
from recaption.fit.objective import caption_nats, contrastive_loss, forward
from recaption.fit.optimizer import optimizer_of
from recaption.fit.settings import FitSettings

BEST = "best.safetensors"


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


@dataclass(frozen=True)
class Outcome:
    """A finished training: the figures of the weights that were kept, and the road there."""

    steps: int
    seconds: float
    kept: Measure
    metrics: list[dict[str, Any]]


def train_captioner(
    fitted: Fitted,
    training: Training,
    settings: FitSettings,
    folder: Path,
    on_checkpoint: Callable[[float, Measure], None],
) -> Outcome:
    """Train to the end, or from the newest state in `folder` to there; `fitted` holds the result.

    Args:
        on_checkpoint: called with (share of the steps, held-out figures) while `fitted` holds the
            weights of that moment.

    Raises:
        CaplabError: the loss is not finite.
    """
    model = fitted.model
    if training.pretraining and settings.contrastive_weight:
        torch.manual_seed(settings.seed)
        # A part of the model while it trains, so that it is stepped and stored with the rest.
        model.contrast = ContrastiveHeads(model.config.text_config.hidden_size).to(model.device)
    with (
        progress_bar(training.steps, training.name, "step") as bar,
        ThreadPoolExecutor(1, thread_name_prefix="batches") as pool,
    ):
        trainer = CaptionerTrainer(model, training, settings, folder, on_checkpoint, bar, pool)
        trainer.train(resume_from_checkpoint=trainer.begin_from(newest_state(folder)))
    if hasattr(model, "contrast"):
        del model.contrast
    return trainer.outcome()


class _Steps(Dataset[dict[str, Tensor]]):
    """The forward passes of a training, in order; the next step's are drawn meanwhile."""

    def __init__(self, training: Training, settings: FitSettings, pool: ThreadPoolExecutor) -> None:
        self.training, self.pool = training, pool
        self.size, self.parts = settings.batch_size, settings.accumulate
        self.drawn: dict[int, Future[list[Batch]]] = {}

    def __len__(self) -> int:
        return self.training.steps * self.parts

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        step, part = divmod(index, self.parts)
        for wanted in {step, step + 1} - self.drawn.keys():
            draw = self.training.batches.step
            self.drawn[wanted] = self.pool.submit(draw, wanted, self.size, self.parts)
        self.drawn.pop(step - 1, None)
        batches = self.drawn[step].result()
        tokens = torch.tensor(sum(batch.tokens for batch in batches))
        return {**batches[part].inputs, "wanted": batches[part].wanted, "step_tokens": tokens}


class CaptionerTrainer(Trainer):  # type: ignore[misc]
    """What a captioner asks of the loop beside the Trainer's own: losses, figures, what to keep."""

    def __init__(
        self,
        model: Any,
        training: Training,
        settings: FitSettings,
        folder: Path,
        on_checkpoint: Callable[[float, Measure], None],
        bar: Any,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.training, self.settings, self.on_checkpoint = training, settings, on_checkpoint
        self.folder, self.bar, self.began = folder, bar, time.perf_counter()
        self.precision = dtype_of(precision_of(settings.precision, str(model.device)))
        steps, times = training.steps, settings.validations
        self.measured = {-(-steps * (i + 1) // times) for i in range(times)}
        shares = () if training.pretraining else settings.checkpoints
        self.kept = {math.ceil(share * steps): share for share in shares}
        self.held_out = training.held_out.in_order(4 * settings.batch_size)
        self.best: dict[str, Tensor] = {}
        self.best_step = 0
        super().__init__(
            model,
            _arguments(model.device, settings, training, folder),
            data_collator=lambda passes: passes[0],
            train_dataset=_Steps(training, settings, pool),
            callbacks=[_Schedule(self)],
        )
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True  # it is a share of the whole step's

    def begin_from(self, state: str | None) -> str | None:
        """Take over what a state holds beside the Trainer's own: the best weights so far."""
        if state and (path := Path(state) / BEST).exists():
            with safe_open(str(path), framework="pt") as opened:
                self.best_step = int(opened.metadata()["step"])
                self.best = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return state

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights under their names in memory (a captioner's own file may have others), and
        the best ones so far; no more, since a state is for going on alone."""
        folder = Path(output_dir or self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.weights(), folder / "model.safetensors")
        if self.best:
            save_file(self.best, folder / BEST, {"step": str(self.best_step)})

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights on the host; tied ones twice, since the format wants it so."""
        own = self.model.state_dict().items()
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in own}

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Muon and AdamW; the schedule is the Trainer's."""
        self.optimizer = optimizer_of(self.model, self.settings, self.precision)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], *_args: Any, **_options: Any
    ) -> Tensor:
        """This pass's share of the step's loss a token, however the step is cut into passes."""
        tokens, wanted = inputs.pop("step_tokens"), inputs.pop("wanted")
        weight = self.settings.caption_weight if self.training.pretraining else 1.0
        with self.autocast():
            logits, output = forward(model, Batch(inputs, wanted))
            loss: Tensor = weight * caption_nats(logits, wanted) / tokens
            if hasattr(model, "contrast"):
                contrast = contrastive_loss(model, model.contrast, output, wanted)
                share = self.settings.contrastive_weight / self.settings.accumulate
                loss = loss + share * contrast
        if not torch.isfinite(loss):
            raise CaplabError(
                f"The loss of {self.training.name} was not finite at step "
                f"{self.state.global_step}; lower the learning rates or use precision fp32."
            )
        return loss

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The computation's precision; weights stay float32."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.model.device.type, self.precision)

    def evaluate(self, *_args: Any, **_options: Any) -> dict[str, float]:
        """Held-out figures; the best weights so far are kept, and those that are asked for."""
        step, history = self.state.global_step, self.state.log_history
        figures = self.measure(step)
        losses = [row["held_out_loss"] for row in history if "held_out_loss" in row]
        if figures.loss < min(losses, default=math.inf):
            self.best_step = step
            self.best = self.weights() if self.settings.keep == "best" else {}
        losses.append(figures.loss)
        seconds = [row["seconds"] for row in history if "seconds" in row]
        metrics = {"held_out_loss": figures.loss, "token_accuracy": figures.token_accuracy}
        now = time.perf_counter()
        self.log({**metrics, "seconds": (seconds[-1] if seconds else 0.0) + now - self.began})
        self.began = now
        self.bar.set_postfix_str(f"held-out loss {figures.loss:.4f}")
        if step in self.kept:
            self.on_checkpoint(self.kept[step], figures)
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        if 0 < self.settings.patience < len(losses) - losses.index(min(losses)):
            self.control.should_training_stop = True
            # A run that is killed from here on comes to this measurement again.
            self.control.should_save = False
        return metrics

    @torch.no_grad()
    def measure(self, step: int) -> Measure:
        """Loss a token and token accuracy, teacher-forced, on the held-out pairs."""
        self.model.eval()
        nats, right, tokens = 0.0, 0, 0
        for batch in self.held_out:
            batch = batch.to(self.model.device)
            with self.autocast():
                logits, _ = forward(self.model, batch)
            nats += float(caption_nats(logits, batch.wanted))
            right += int((logits.argmax(-1) == batch.wanted).sum())
            tokens += batch.tokens
        return Measure(step, nats / tokens, right / tokens)

    def outcome(self) -> Outcome:
        """Put the weights to keep into the model, and say how it went."""
        step = self.state.global_step
        if self.best:
            own = self.model.state_dict()
            self.model.load_state_dict({name: self.best[name] for name in own})
            step = self.best_step
        rows: list[dict[str, Any]] = []
        loss: dict[str, float] = {}
        for row in self.state.log_history:
            # Losses are logged where states are stored too, so that a killed run's are the same.
            loss = row if "loss" in row else loss
            if "held_out_loss" in row:
                shown = ("step", "held_out_loss", "token_accuracy", "seconds")
                scale = loss["learning_rate"] / self.settings.rate
                rows.append(
                    {
                        "training": self.training.name,
                        "loss": loss["loss"],
                        "learning_rate_scale": scale,
                        **{name: row[name] for name in shown},
                    }
                )
        return Outcome(self.state.global_step, rows[-1]["seconds"], self.measure(step), rows)


class _Schedule(TrainerCallback):  # type: ignore[misc]
    """When to measure, to store and to log."""

    def __init__(self, trainer: CaptionerTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, trainer = state.global_step, self.trainer
        trainer.bar.update()
        control.should_evaluate = step in trainer.measured or step in trainer.kept
        last = step == trainer.training.steps
        control.should_save = step % trainer.settings.resume_every == 0 and not last
        control.should_log = control.should_evaluate or control.should_save

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        rotate_checkpoints(str(self.trainer.folder), save_total_limit=1)


def _arguments(
    device: torch.device, settings: FitSettings, training: Training, folder: Path
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,  # ready-made batches
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        max_grad_norm=settings.gradient_clip,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup_share * training.steps),
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        seed=settings.seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
    if device.type == "cuda":
        # By themselves they take the first GPU, and split a batch over all that they see.
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
        arguments._n_gpu = 1
        arguments.distributed_state.device = arguments.__dict__["_setup_devices"] = device
    return arguments


def newest_state(folder: Path) -> str | None:
    """The newest whole state below `folder`; one that was cut short, by a kill, is removed."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    for path in reversed(states):
        try:
            json.loads((path / "trainer_state.json").read_text())  # the last file of a state
            return str(path)
        except (OSError, ValueError):
            shutil.rmtree(path)
    return None
