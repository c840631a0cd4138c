"""What made an output: resolved settings, package versions and the hashes of all weights."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from curate.base.settings import Settings

# Packages whose version can change a result; absent ones are recorded as None.
RECORDED_PACKAGES = (
    "caption-lab",
    "simplejpeg",
    "opencv-python-headless",
    "open_clip_torch",
    "transformers",
    "diffusers",
    "torch",
    "numpy",
    "pillow",
    "pyarrow",
    "duckdb",
    "faiss-cpu",
    "ray",
)


def package_versions() -> dict[str, str | None]:
    """Installed version of every recorded package and of Python."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def provenance(
    settings: Settings | Mapping[str, Any], weights: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The record stored beside every output.

    Args:
        settings: the resolved settings.
        weights: name of each weights file -> hex sha256 of its bytes.
    """
    resolved = settings.resolved() if isinstance(settings, Settings) else dict(settings)
    return {
        "settings": resolved,
        "versions": package_versions(),
        "weights": dict(weights or {}),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
