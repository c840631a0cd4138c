"""Presets: a base and a diff of a few lines of YAML."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from curate.base.errors import ConfigError
from curate.base.settings import nearest


def preset_names() -> list[str]:
    """Names of the presets that come with the package."""
    folder = resources.files("train") / "configs"
    return sorted(path.name[:-5] for path in folder.iterdir() if path.name.endswith(".yaml"))


def load_preset(name: str, _above: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """The `model:` and `train:` parts of a preset, by name or by path of a YAML file.

    A preset may name another as its `base:` and then holds what differs from it.

    Raises:
        ConfigError: no such preset or file, or it has other parts.
    """
    if name in preset_names():
        text = (resources.files("train") / "configs" / f"{name}.yaml").read_text("utf-8")
    elif name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text("utf-8")
        except OSError as error:
            raise ConfigError(f"The model config {name} cannot be read ({error}).") from error
    else:
        raise ConfigError(f"There is no model preset {name!r}; {nearest(name, preset_names())}")
    try:
        loaded = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"The model config {name} is not valid YAML ({error}).") from error
    if not isinstance(loaded, dict) or not set(loaded) <= {"base", "model", "train"}:
        raise ConfigError(
            f"The model config {name} must hold `base:`, `model:` and `train:`, and no more."
        )
    own = {part: loaded.get(part) or {} for part in ("model", "train")}
    base = loaded.get("base")
    if base is None:
        return own
    if base in _above:
        raise ConfigError(f"The model config {name} is its own base, by way of {base}.")
    return merged(load_preset(str(base), (*_above, name)), own)


def merged(base: dict[str, Any], diff: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `diff`, dict by dict; lists and scalars are replaced whole."""
    result = dict(base)
    for name, value in diff.items():
        inner = result.get(name)
        both = isinstance(value, dict) and isinstance(inner, dict)
        result[name] = merged(inner, value) if both else value  # type: ignore[arg-type]
    return result
