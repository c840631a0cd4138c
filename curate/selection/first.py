"""The first selection of a dataset, which `caplab curate` makes again whenever samples came."""

from __future__ import annotations

from typing import Any

from curate.base.errors import ConfigError
from curate.selection.funnel import SelectionSummary
from curate.selection.select import check_name, select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from curate.store.holes import json_damage


def select_first(dataset: Dataset, settings: SelectSettings) -> SelectionSummary:
    """Make it anew: scores may have been added; that the rules are the same was checked."""
    kept = {"overwrite": True, **_balance_of(dataset, settings.name)}
    return select(dataset, settings.model_copy(update=kept))


def _balance_of(dataset: Dataset, name: str) -> dict[str, Any]:
    """How the stored selection was balanced since, if it was."""
    if json_damage(dataset.selection_path(name).with_suffix(".json")):
        return {}
    stored = dataset.selection_record(name).get("settings", {})
    return {part: stored[part] for part in ("balance", "cap") if stored.get(part) is not None}


def refuse_other_rules(dataset: Dataset, settings: SelectSettings) -> None:
    """Before hours of work: the first selection's name must not stand for other rules."""
    check_name(settings.name)
    record = dataset.selection_path(settings.name).with_suffix(".json")
    if dataset.selection_path(settings.name).exists() and json_damage(record) is None:
        where = dataset.selection_record(settings.name)["where"]
        if where != settings.where:
            raise ConfigError(
                f"The selection {settings.name!r} exists and stands for {where!r}; "
                f"choose another --name."
            )
