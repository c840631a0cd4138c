"""Published selection recipes by name, each written as a rule over the columns of a sample.

A recipe speaks of quantities ("the similarity by CLIP ViT-B/32"), a dataset of columns. A `Need`
joins the two: which columns may stand for the quantity, how to compute one that is missing, and,
where a threshold only means something for one CLIP model, which model. `--preset-columns
QUANTITY=EXPRESSION` replaces a column by any SQL expression, at the user's own judgement.

What a recipe did before any score existed (which pages were crawled, deduplication by URL) is not
here; copies are dropped by the selection's own keep rule.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from curate.base.errors import ConfigError
from curate.base.settings import nearest
from curate.scoring.scored_with import clip_models
from curate.selection.preset_list import PRESETS, Need, Preset
from curate.store.dataset import Dataset

if TYPE_CHECKING:
    from curate.selection.settings import SelectSettings

__all__ = ["PRESETS", "Applied", "Preset", "describe_presets", "preset_where"]


@dataclass(frozen=True)
class Applied:
    """A preset on one dataset: `where` is its rule, `columns` says what stood for what."""

    preset: Preset
    where: str
    values: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """For the selection's record."""
        return {
            "name": self.preset.name,
            "source": self.preset.source,
            "values": dict(self.values),
            "columns": dict(self.columns),
        }


def preset_where(
    settings: SelectSettings, dataset: Dataset, columns: Sequence[str]
) -> Applied | None:
    """The rule of `settings.preset` on a dataset with these columns; None without a preset.

    Raises:
        ConfigError: no such preset, number or quantity; or a quantity for which the dataset has no
            column, or one by another model than the recipe's (and `any_clip_model` is not set).
    """
    if settings.preset is None:
        for name in ("preset_values", "preset_columns"):
            if getattr(settings, name):
                raise ConfigError(f"--{name.replace('_', '-')} needs a --preset.")
        return None
    preset = PRESETS.get(settings.preset)
    if preset is None:
        raise ConfigError(
            f"There is no preset {settings.preset!r}; {nearest(settings.preset, list(PRESETS))}"
        )
    values = dict(preset.values)
    for name, value in settings.preset_values.items():
        if name not in values:
            have = nearest(name, list(values)) if values else "it has none."
            raise ConfigError(f"The preset {preset.name} has no number {name!r}; {have}")
        values[name] = value
    quantities = [need.quantity for need in preset.needs]
    for name in settings.preset_columns:
        if name not in quantities:
            raise ConfigError(
                f"The preset {preset.name} needs no {name!r}; {nearest(name, quantities)}"
            )
    models = clip_models(dataset, columns)
    found = {}
    for need in preset.needs:
        given = settings.preset_columns.get(need.quantity)
        found[need.quantity] = (
            f"({given})"
            if given is not None
            else _column(need, preset, columns, models, settings.any_clip_model)
        )
    shown = {name: f"{value:g}" for name, value in values.items()}
    return Applied(preset, preset.rule.format(**shown, **found), values, found)


def _column(
    need: Need,
    preset: Preset,
    columns: Sequence[str],
    models: Mapping[str, str | None],
    any_model: bool,
) -> str:
    present = [name for name in need.columns if name in columns]
    if need.model is None:
        if present:
            return present[0]
    else:
        # Any similarity will do that was made with the recipe's model.
        similarities = [*present, *(name for name in models if name not in present)]
        for name in similarities:
            if _same_model(models.get(name), need.model):
                return name
        if similarities and any_model:
            return similarities[0]
        if similarities:
            other = models.get(similarities[0])
            made = f"was made with {other}" if other else "does not say which model made it"
            raise ConfigError(
                f"The preset {preset.name} rests on {need.meaning} ({need.model}), but "
                f"{similarities[0]} {made}; {need.advice}, or say --any-clip-model to apply its "
                f"numbers anyway."
            )
    raise ConfigError(
        f"The preset {preset.name} needs {need.meaning}, and the dataset has no column "
        f"{' or '.join(need.columns)}; {need.advice}, or name your own with --preset-columns "
        f"{need.quantity}=COLUMN."
    )


def _same_model(made: str | None, wanted: str) -> bool:
    """Whether two model names mean the same weights, QuickGELU spelt out or not."""
    if made is None:
        return False

    def plain(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower().replace("quickgelu", ""))

    return plain(made) == plain(wanted)


def describe_presets(as_json: bool = False) -> str:
    """Every preset with its rule, numbers, needs and source, for a person or as JSON lines."""
    if as_json:
        return "\n".join(
            json.dumps(
                {
                    "name": preset.name,
                    "about": preset.about,
                    "rule": preset.rule,
                    "values": dict(preset.values),
                    "needs": {need.quantity: list(need.columns) for need in preset.needs},
                    "source": preset.source,
                }
            )
            for preset in PRESETS.values()
        )
    blocks = []
    for preset in PRESETS.values():
        numbers = {name: f"{value:g}" for name, value in preset.values.items()}
        plain = {need.quantity: need.columns[0] for need in preset.needs}
        lines = [preset.name, f"  {preset.about}", f"  {preset.rule.format(**numbers, **plain)}"]
        if numbers:
            shown = ", ".join(f"{name}={value}" for name, value in numbers.items())
            lines.append(f"  numbers: {shown}")
        for need in preset.needs:
            model = f" by {need.model}" if need.model else ""
            lines.append(f"  {need.quantity}: {need.meaning}{model}; {' or '.join(need.columns)}")
        blocks.append("\n".join([*lines, f"  source: {preset.source}"]))
    return "\n\n".join(blocks)
