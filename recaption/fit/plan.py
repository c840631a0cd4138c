"""What a fit is made of, known and checked before its first step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.base.errors import ConfigError
from curate.base.settings import device_of, precision_of
from recaption.engines.identity import local_captioner
from recaption.fit.batches import Batches, caption_tokens
from recaption.fit.loop import Training
from recaption.fit.model import Fitted, load_captioner, new_captioner
from recaption.fit.pairs import TOO_LONG, Pairs, read_pairs
from recaption.fit.settings import ALT, TOGETHER, FitSettings
from recaption.prompts.templates import PromptTemplate

PRETRAINED = "pretrained"
# Where transformers' captioners keep their vision tower.
_VISION = ("vision_tower", "visual", "vision_model")


@dataclass(frozen=True)
class Plan:
    """Settings, prompts, pairs, and the digest of a loaded base (empty for a new one)."""

    settings: FitSettings
    templates: dict[str, PromptTemplate]
    pairs: Pairs
    noisy: Pairs | None
    base: str

    def trainings(self) -> list[tuple[str, Pairs]]:
        """(name, pairs) of every training, in order; pre-training is the first, if there is any."""
        first = [(PRETRAINED, self.noisy)] if self.noisy is not None else []
        if self.settings.together:
            return [*first, (TOGETHER, self.pairs)]
        return [*first, *((kind, self.pairs.of_kinds([kind])) for kind in self.settings.kinds)]

    def refused(self) -> Counter[str]:
        """Reason -> rows left out."""
        counts = Counter(self.pairs.reasons())
        counts.update(self.noisy.reasons() if self.noisy else {})
        return counts


def plan_of(source: Path | str, settings: FitSettings) -> Plan:
    """Read the pairs and identify the base.

    Raises:
        ConfigError: no such base or device, or no pairs of a kind.
    """
    # Auto is resolved once: a run that is continued elsewhere may not change its precision.
    precision = precision_of(settings.precision, settings.device)
    settings = settings.model_copy(update={"precision": precision})
    templates = settings.templates()
    base = "" if settings.is_new else local_captioner(settings.base, settings.revision).digest
    pairs = read_pairs(source, settings.kinds, settings.selection, settings.caption_sources)
    missing = [kind for kind in settings.kinds if kind not in pairs.counts()]
    if missing:
        raise ConfigError(f"{source} has no pair of kind {', '.join(missing)}.")
    noisy = read_pairs(settings.pretrain, (ALT,)) if settings.pretrain else None
    return Plan(settings, templates, pairs, noisy, base)


def new_start(plan: Plan) -> Fitted:
    """A captioner with random weights, its tokenizer trained on all texts of the plan."""
    sources = [plan.pairs, *([plan.noisy] if plan.noisy else [])]
    texts = sorted(row.caption for pairs in sources for row in pairs.rows)
    prompts = {kind: template.render([None])[0] for kind, template in plan.templates.items()}
    return new_captioner(plan.settings, texts, prompts)


def loaded_start(settings: FitSettings) -> Fitted:
    """The base."""
    return load_captioner(local_captioner(settings.base, settings.revision).folder())


def refuse_long(plan: Plan, start: Fitted) -> None:
    """Leave out captions of more tokens than asked for.

    Raises:
        ConfigError: nothing is left.
    """
    limit = plan.settings.max_caption_tokens
    for pairs in (plan.pairs, plan.noisy):
        if pairs is not None:
            tokens = caption_tokens(start.processor, pairs, plan.templates)
            pairs.refuse([i for i, ids in enumerate(tokens) if len(ids) > limit], TOO_LONG)
            if not pairs.rows:
                raise ConfigError(f"Every caption has over max_caption_tokens = {limit} tokens.")


def training_of(plan: Plan, name: str, pairs: Pairs, fitted: Fitted) -> Training:
    """One training: what is learnt, what is held out, and for how many steps.

    Raises:
        ConfigError: too few pictures to hold one out.
    """
    settings = plan.settings
    apart = pairs.held_out(settings.validation_share)
    rows, held = np.flatnonzero(~apart), np.flatnonzero(apart)
    if not len(rows):
        raise ConfigError(f"{name} has pairs of one picture only; one has to be held out.")
    pretraining = name == PRETRAINED
    epochs = settings.pretrain_epochs if pretraining else settings.epochs
    shown = (fitted.processor, pairs)
    return Training(
        name=name,
        batches=Batches(
            *shown, rows, plan.templates, settings.image_size, settings.seed, settings.augment
        ),
        held_out=Batches(*shown, held, plan.templates, settings.image_size),
        steps=max(1, round(epochs * len(rows) / (settings.batch_size * settings.accumulate))),
        pretraining=pretraining,
    )


def place(fitted: Fitted, settings: FitSettings) -> None:
    """Onto the device, with what is frozen frozen.

    Raises:
        ConfigError: no such device, or a vision tower that cannot be found.
    """
    fitted.model.to(device_of(settings.device))
    if settings.gradient_checkpointing:
        fitted.model.gradient_checkpointing_enable()
    if settings.freeze_vision:
        inner = fitted.model.model
        tower = next((getattr(inner, n) for n in _VISION if hasattr(inner, n)), None)
        if tower is None:
            raise ConfigError(
                f"Where a {fitted.model.config.model_type} keeps its vision tower is unknown; "
                f"leave freeze_vision off."
            )
        tower.requires_grad_(False)
