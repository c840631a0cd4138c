"""What `init_from` names: a pipeline, or a run and what it trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_record
from train.adapters import LORA_FILE


@dataclass(frozen=True)
class Start:
    """Where a model's parts come from."""

    source: str
    """Pipeline in diffusers' layout, a folder or a hub id: frozen parts and the backbone."""
    adapters: Path | None = None
    """Low-rank adapters on that backbone."""


def resolve(init_from: str) -> Start:
    """A run means the pipeline that it exported, or its own start and its adapters upon that.

    Raises:
        ConfigError: a folder that is neither a pipeline nor a run, or a run of new tokens, which
            holds no network.
        DatasetError: a run that is not finished.
    """
    folder = Path(init_from)
    if not folder.exists() or (folder / "model_index.json").exists():
        return Start(init_from)
    if not (folder / "run.json").exists():
        raise ConfigError(f"init_from {init_from} is neither a pipeline's folder nor a run.")
    if (folder / "pipeline" / "model_index.json").exists():
        return Start(str(folder / "pipeline"))
    settings = read_record(folder / "run.json").get("settings", {})
    if settings.get("new_tokens"):
        raise ConfigError(
            f"{init_from} trained new tokens alone; start from its base, {settings['init_from']}."
        )
    if not (folder / "lora" / LORA_FILE).exists():
        raise DatasetError(f"{init_from} holds no finished training run; run `caplab train` first.")
    return Start(resolve(str(settings["init_from"])).source, folder / "lora" / LORA_FILE)
