"""A captioner of one's own, as DALL-E 3's two were made (Betker et al. 2023, section 2.1).

One start (pre-trained on noisy pairs, or loaded), then a fine-tune for each kind of caption.

OUT/
  fit.json                 settings, versions, hashes of base and pairs
  refused.json             rows left out: name and reason
  new/                     a new captioner before any training (tokenizer and configuration)
  pretrained/              the common start, where there was pre-training
  short/, descriptive/     the captioners, each a folder that `caplab recaption` loads
  checkpoints/KIND-0.15/   the same after that share of the fine-tune
  state/                   what a killed run continues from
  metrics.json             losses, held-out loss and token accuracy over the steps
  summary.json             last of all; its presence says that the run is finished
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from curate.base.files import read_json, write_json
from curate.base.provenance import provenance
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.base.weights import weight_hashes
from curate.store.claims import claim_directory
from curate.store.lock import hold
from recaption.engines.identity import local_captioner
from recaption.fit.loop import Measure, train_captioner
from recaption.fit.model import Fitted, load_captioner
from recaption.fit.pairs import Pairs
from recaption.fit.plan import (
    PRETRAINED,
    Plan,
    loaded_start,
    new_start,
    place,
    plan_of,
    refuse_long,
    training_of,
)
from recaption.fit.settings import NEW, FitSettings


@dataclass(frozen=True)
class FittedCaptioner:
    """One captioner that a run made: where it lies, and its held-out figures."""

    name: str
    folder: str
    pairs: int
    """Learnt from; held-out ones not counted."""
    steps: int
    best_step: int
    """The step whose weights were kept."""
    held_out_loss: float
    token_accuracy: float
    seconds: float
    weights: dict[str, str]
    """File -> sha256."""


@dataclass(frozen=True)
class FitSummary(Summary):
    """The outcome of a run, as in its summary.json."""

    directory: str
    parameters: int
    captioners: list[FittedCaptioner]
    refused: dict[str, int]
    """Reason -> rows left out."""

    def text(self) -> str:
        """What the command prints."""
        lines = [
            f"{c.name}: {amount(c.pairs, 'pair')}, {amount(c.steps, 'step')} in {c.seconds:.0f} s, "
            f"held-out loss {c.held_out_loss:.4f}, {c.token_accuracy:.1%} of tokens right: "
            f"{c.folder}"
            for c in self.captioners
        ]
        if self.refused:
            told = ", ".join(f"{n:,} {reason}" for reason, n in sorted(self.refused.items()))
            lines.append(f"left out: {told} (refused.json)")
        return "\n".join(lines)


def fit(source: Path | str, out: Path | str, settings: FitSettings) -> FitSummary:
    """Make the captioners, or continue, or return the summary of the finished run.

    Args:
        source: the (image, kind, caption) pairs; see `read_pairs`.
        out: the run's directory; it belongs to these settings and these pairs.

    Raises:
        ConfigError: the base or the pairs are not what is needed.
        DatasetError: `out` belongs to other settings or other pairs.
        CaplabError: training does not stay finite.
    """
    out = Path(out).absolute()
    plan = plan_of(source, settings)
    with hold(out):
        return _fit(out, plan, settings)


def _fit(out: Path, plan: Plan, settings: FitSettings) -> FitSummary:
    _claim(out, plan)
    if (out / "summary.json").exists():
        return _read_summary(out)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    start = _start(out, plan)
    refuse_long(plan, start)
    refusals = [*plan.pairs.refused, *(plan.noisy.refused if plan.noisy else [])]
    write_json(out / "refused.json", [refusal._asdict() for refusal in refusals])

    begin = out / NEW
    if not settings.is_new:
        begin = local_captioner(settings.base, settings.revision).folder()
    captioners = []
    for name, pairs in plan.trainings():
        captioners.append(_train(out, plan, name, pairs, begin))
        if name == PRETRAINED:
            begin = out / PRETRAINED
    notes = [read_json(out / "state" / f"{captioner.name}.json") for captioner in captioners]
    write_json(out / "metrics.json", [row for note in notes for row in note["metrics"]])
    summary = FitSummary(str(out), start.parameters, captioners, dict(plan.refused()))
    write_json(out / "summary.json", asdict(summary))
    return summary


def _claim(out: Path, plan: Plan) -> None:
    hashes = {"pairs": plan.pairs.sha256(), "base": plan.base}
    if plan.noisy is not None:
        hashes["pretrain"] = plan.noisy.sha256()
    # Where base, pairs and prompts lie is no part of what they are.
    places = ("base", "revision", "pretrain", "prompts", "selection", "caption_sources")
    identity = {
        "settings": {k: v for k, v in plan.settings.identity().items() if k not in places},
        "prompts": {kind: template.sha256 for kind, template in plan.templates.items()},
        **hashes,
    }
    record = provenance(plan.settings, hashes)
    claim_directory(out, out / "fit.json", "fitted captioner", identity, record)


def _start(out: Path, plan: Plan) -> Fitted:
    """The common start. A new one is stored before anything else, so that a rerun with another
    version of a library continues with the same tokenizer and initial weights."""
    if not plan.settings.is_new:
        return loaded_start(plan.settings)
    if not (out / NEW).exists():
        _save_whole(new_start(plan), out / NEW, {})
    return load_captioner(out / NEW)


def _train(out: Path, plan: Plan, name: str, pairs: Pairs, begin: Path) -> FittedCaptioner:
    """One captioner, from `begin` to OUT/name; returned as it stands if it is finished."""
    note = out / "state" / f"{name}.json"
    if note.exists():
        return FittedCaptioner(**read_json(note)["captioner"])
    settings = plan.settings
    fitted = load_captioner(begin)
    place(fitted, settings)
    training = training_of(plan, name, pairs, fitted)

    def keep(share: float, figures: Measure) -> None:
        folder = out / "checkpoints" / f"{name}-{share:g}"
        _save_whole(fitted, folder, _record(name, figures, training.steps))

    state = out / "state" / name
    outcome = train_captioner(fitted, training, settings, state, keep)
    _save_whole(fitted, out / name, _record(name, outcome.kept, training.steps))
    captioner = FittedCaptioner(
        name=name,
        folder=str(out / name),
        pairs=len(training.batches),
        steps=outcome.steps,
        held_out_loss=outcome.kept.loss,
        best_step=outcome.kept.step,
        token_accuracy=outcome.kept.token_accuracy,
        seconds=outcome.seconds,
        weights=weight_hashes(out / name),
    )
    write_json(note, {"captioner": asdict(captioner), "metrics": outcome.metrics})
    shutil.rmtree(state, ignore_errors=True)
    return captioner


def _record(name: str, figures: Measure, steps: int) -> dict[str, Any]:
    """What stands beside the weights; without times, so that equal captioners are equal."""
    return {"fit": name, "steps_in_all": steps, **asdict(figures)}


def _save_whole(fitted: Fitted, folder: Path, record: dict[str, Any]) -> None:
    """A captioner's folder, all of it or nothing."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    fitted.save(temporary)
    write_json(temporary / "held_out.json", record)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)


def _read_summary(out: Path) -> FitSummary:
    stored = read_json(out / "summary.json")
    captioners = [FittedCaptioner(**captioner) for captioner in stored.pop("captioners")]
    return FitSummary(captioners=captioners, **stored)
