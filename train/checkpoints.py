"""Checkpoints: one safetensors file a step, whole or not at all, and which of them are kept.

Tensors are whole and float32 however many ranks wrote them, so another number of ranks goes on from
them. The rest of the state travels in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curate.base.errors import CaplabError
from curate.base.files import atomic_path
from train.distributed import Ranks
from train.optimizer import Optimizer, before_cooldown
from train.settings import TrainSettings

# Two are enough: if the newest was cut short by a crash of the disk, the one before still stands.
KEPT = 2


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
    parameters: int = 0
    """Numbers that are trained."""
    planned: int = 0
    """Steps that the run was told to take when this was written: the cool-down hangs on it."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self,
        out: Path,
        mark: str,
        settings: TrainSettings,
        ranks: Ranks,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            mark: fingerprint of what the run is; a checkpoint of another one is not loaded.
        """
        self.out, self.mark, self.settings = out, mark, settings
        self.ranks, self.say = ranks, say
        self.newest: int | None = None
        """Step from which a run that ends now would go on."""

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted((self.out / "checkpoints").glob("[0-9]*.safetensors"))

    def save(self, optimizer: Optimizer, state: Progress) -> None:
        """Write the state; all ranks call it once their records are on disk, the first one writes.

        The newest two stay, and the one from before the cool-down, from which a run that is given
        more steps goes on.
        """
        from safetensors.torch import save_file

        state.planned = self.settings.steps
        self.ranks.barrier()
        tensors = optimizer.state_dict()  # gathered by all
        if self.ranks.first:
            path = self.out / "checkpoints" / f"{state.step:08d}.safetensors"
            note = {"progress": json.dumps(asdict(state)), "run": self.mark}
            with atomic_path(path) as temporary:
                save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata=note)
            # What lies ahead is of the run before it was given more steps.
            paths = self.paths()
            done = [path for path in paths if int(path.stem) <= state.step]
            turn = before_cooldown(self.settings)
            kept = {*done[-KEPT:], *(path for path in done if int(path.stem) == turn)}
            for old in set(paths) - kept:
                old.unlink()
        self.newest = state.step
        self.ranks.barrier()

    def load(self, optimizer: Optimizer) -> Progress | None:
        """Restore the newest usable checkpoint into `optimizer`; None where there is none.

        One that is damaged or of another run is told, and set aside as NAME.unusable so that it
        is not counted among those that are kept. One from the cool-down towards another number of
        steps is passed over.
        """
        found = None
        with self.ranks.first_alone():
            for path in reversed(self.paths()):
                try:
                    found = self._restore(path, optimizer)
                except CheckpointError as error:
                    path.rename(path.with_suffix(".unusable"))
                    before = self.paths()
                    self.say(
                        f"The checkpoint {path} is not used ({error}); training goes on from "
                        f"{f'step {int(before[-1].stem)}' if before else 'the start'}."
                    )
                if found is not None:
                    self.newest = found.step
                    break
        return found

    @contextmanager
    def telling_an_end(self, state: Progress) -> Iterator[None]:
        """Say, where the block is told to end, what the same command does next."""
        try:
            yield
        except Exception:
            raise
        except BaseException:  # a signal, whatever the program around makes of it
            self.say(
                f"Training ended after step {state.step}; the same command "
                f"{f'goes on from step {self.newest}' if self.newest else 'starts anew'}"
                f"{'' if self.newest else ', since no checkpoint was written yet'}."
            )
            raise

    def _restore(self, path: Path, optimizer: Optimizer) -> Progress | None:
        """Load a checkpoint whole or not at all; None where it is of another cool-down.

        Raises:
            CheckpointError: it is damaged, or of another run.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt", device="cpu") as opened:
                note = opened.metadata() or {}
                progress = Progress(**json.loads(note["progress"]))
                if note.get("run") == self.mark and not self._fits(progress):
                    return None
                state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"it is damaged: {error}") from error
        if note.get("run") != self.mark:
            raise CheckpointError("it is of other settings or other data")
        try:
            optimizer.load_state_dict(state)
        except KeyError as error:
            raise CheckpointError(f"it is of another model: {error}") from error
        return progress

    def _fits(self, progress: Progress) -> bool:
        """Whether a run of the steps that are asked for would have come to the same state."""
        if progress.planned == self.settings.steps:
            return True
        turns = (
            before_cooldown(self.settings.model_copy(update={"steps": steps}))
            for steps in (progress.planned, self.settings.steps)
        )
        return progress.step <= min(turns)


class CheckpointError(CaplabError):
    """A checkpoint that cannot be continued from."""
