"""What a dataset keeps of the list that made it, beside further lists that join."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.base.errors import DatasetError
from curate.intake.lists.record import place_of, read_intakes
from curate.intake.settings import IntakeSettings
from curate.store.dataset import Dataset

_OF_A_LIST = ("input", "format", "columns", "encoding")
"""What of a dataset's identity is its first list's."""


def stored_values(dataset: Dataset, source: str | Path) -> dict[str, Any]:
    """The settings of dataset.json, but how lists are read; that only of a list that it knows.

    Raises:
        DatasetError: there is no dataset.
    """
    if not dataset.record_path.exists():
        raise DatasetError(
            f"{dataset.directory} is no dataset that could be extended; without --extend one is "
            f"made there."
        )
    anew = {*IntakeSettings.model_fields} - {"rows_per_shard"}
    settings = dataset.record().get("settings", {})
    stored = {name: value for name, value in settings.items() if name not in anew}
    for intake in read_intakes(dataset):
        if intake.given == place_of(source):
            stored |= intake.reading()
    return stored


def identity_of(dataset: Dataset, identity: Mapping[str, Any], extend: bool) -> Mapping[str, Any]:
    """The identity under which a list comes to a dataset: where it joins, the dataset's own list's.

    Raises:
        DatasetError: the dataset was made from another list, and this one is not to join it.
    """
    if not dataset.record_path.exists():
        return identity
    stored = dataset.record().get("identity", {})
    own = {name: stored[name] for name in _OF_A_LIST if name in stored}
    joining = {name: value for name, value in identity.items() if name not in _OF_A_LIST} | own
    if extend:
        return joining
    if stored.get("input") != identity["input"] and joining == stored:
        raise DatasetError(
            f"{dataset.directory} was made from {stored.get('input')}; with --extend "
            f"{identity['input']} joins it, or choose another --out."
        )
    return identity
