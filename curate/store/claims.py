"""Whose a directory is: settings claim it once, and other settings find it taken."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.base.errors import DatasetError
from curate.base.files import fingerprint, read_record, remove_leftovers, write_json
from curate.store.contract import CONTRACT_VERSION
from curate.store.lock import FOLDER as LOCKS


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, so that a difference is named and not its whole surroundings.

    Tuples become lists, as JSON stores them.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def claim_directory(
    directory: Path,
    record_path: Path,
    kind: str,
    identity: Mapping[str, Any],
    record: Mapping[str, Any],
) -> bool:
    """Make `directory` belong to the settings in `identity`, or check that it already does.

    Returns:
        True when it was claimed now, False when the same settings had claimed it before.

    Raises:
        DatasetError: other settings own it, or it holds files that are none of ours. Nothing is
            overwritten in either case.
    """
    mark = fingerprint(identity)
    if record_path.exists():
        stored = read_record(record_path)
        if stored.get("identity_fingerprint") == mark:
            remove_leftovers(directory, below=True)  # only now is it known to be ours
            return False
        before, now = flat(stored.get("identity", {})), flat(identity)
        differing = sorted(n for n in {*before, *now} if before.get(n) != now.get(n))
        changes = "; ".join(
            f"{name} was {before.get(name)!r}, now {now.get(name)!r}" for name in differing[:3]
        )
        raise DatasetError(
            f"{directory} is a {kind} of other settings ({changes}); choose another --out "
            f"or delete it."
        )
    if directory.exists() and (
        not directory.is_dir() or any(path.name != LOCKS for path in directory.iterdir())
    ):
        raise DatasetError(
            f"{directory} exists and is not a {kind} of ours; choose an empty or new --out."
        )
    write_json(
        record_path,
        {
            "kind": kind,
            "contract_version": CONTRACT_VERSION,
            "identity": dict(identity),
            "identity_fingerprint": mark,
            **record,
        },
    )
    return True


def empty_directory(directory: Path) -> None:
    """Remove a scratch directory of ours, if it is there."""
    shutil.rmtree(directory, ignore_errors=True)
