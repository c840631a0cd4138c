"""Where a judge's model lies, and what identifies it."""

from __future__ import annotations

from pathlib import Path

from curate.base.errors import ConfigError
from recaption.engines.identity import local_captioner


def found(what: str, model: str, revision: str = "main") -> tuple[Path, str]:
    """Folder and fingerprint (sha256) of a transformers model, from a folder or the hub.

    Args:
        what: the model is called so in a fault, such as "detector".

    Raises:
        ConfigError: neither a folder nor a hub id, no safetensors, or no readable config.json.
    """
    try:
        identified = local_captioner(model, revision)
        return identified.folder(), identified.digest
    except ConfigError as error:
        raise ConfigError(str(error).replace("captioner", what)) from error
