"""Which captioner: a local folder, a hub model or a model behind an HTTP server, and its identity.

Nothing here imports torch or transformers, so a driver can name a captioner without loading it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.base.errors import ConfigError
from curate.base.files import sha256_file
from curate.base.weights import weight_hashes

# What decides a model's words beside its weights: configuration, tokenizer, chat template.
_SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
# A hub id is at most OWNER/NAME; anything else that does not exist is a mistyped path.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Captioner:
    """A captioner's identity; small and picklable.

    Attributes:
        engine: what runs it: "transformers", "http", "coca", "vllm", or "own".
        location: local folder, hub id, open_clip's name of the model, or the server's base URL such
            as http://host:8000/v1.
        model: folder name, hub id, or the model's name on the server.
        revision: sha256 over a folder's weights, hub commit, or empty for a server or for
            published weights that open_clip knows by their tag.
        digest: fingerprint of all that decides its words: weights, configuration, tokenizer.
        family: `model_type` of the architecture; empty for a server.
        chat: whether it has a chat template (always true for a server).
    """

    engine: str
    location: str
    model: str
    revision: str
    digest: str
    family: str
    chat: bool

    @property
    def short_name(self) -> str:
        """The model's last name in lower-case letters, digits, dots and hyphens."""
        last = self.model.rstrip("/").rsplit("/", 1)[-1]
        return re.sub(r"[^a-z0-9.]+", "-", last.lower()).strip("-.")[:40] or "captioner"

    def folder(self) -> Path:
        """The folder with its files; a hub model is fetched into the hub's cache if missing.

        Raises:
            ConfigError: the folder is gone, or the hub cannot be reached.
        """
        if Path(self.location).is_dir():
            return Path(self.location)
        return hub_folder(self.location, self.revision)


def is_url(captioner: str) -> bool:
    """Whether the `captioner` setting names a server."""
    return captioner.startswith(("http://", "https://"))


def is_coca(captioner: str) -> bool:
    """Whether the `captioner` setting names a CoCa of open_clip."""
    if captioner.startswith(("hf-hub:", "local-dir:", "coca_")):
        return True
    path = Path(captioner).expanduser()
    return path.suffix == ".json" or (path / "open_clip_config.json").is_file()


def local_captioner(
    captioner: str, revision: str = "main", engine: str = "transformers"
) -> Captioner:
    """Identify the captioner in a local folder or on the hub. Hashes the weights of a folder.

    Raises:
        ConfigError: neither a folder nor a hub id, no safetensors, or no readable config.json.
    """
    path = Path(captioner).expanduser()
    if path.is_dir():
        folder, location = path.absolute(), str(path.absolute())
        hashes = weight_hashes(folder)
        found = _one_hash(hashes)
        model = folder.name
    elif _HUB_ID.fullmatch(captioner):
        folder, location, model = hub_folder(captioner, revision), captioner, captioner
        found = folder.name  # the hub's cache names a snapshot by its commit
    else:
        raise ConfigError(
            f"The captioner {captioner!r} is neither a folder, nor a hub id such as OWNER/NAME, "
            f"nor an http:// address."
        )
    config = _config(folder)
    return Captioner(
        engine=engine,
        location=location,
        model=model,
        revision=found,
        digest=_digest(folder, found),
        family=str(config.get("model_type", "")),
        chat=has_chat_template(folder),
    )


def coca_captioner(captioner: str, pretrained: str = "") -> Captioner:
    """Identify a CoCa of open_clip. Hashes local weights; a hub model is fetched if missing.

    Args:
        captioner: `local-dir:FOLDER`, a folder, `hf-hub:OWNER/NAME`, an open_clip name or config.
        pretrained: with a name: a tag of open_clip's, or a .safetensors file.

    Raises:
        ConfigError: no such model or weights, or weights that are a pickle.
    """
    from curate.scoring.scorers.clip_source import check_source, config_mark

    folder = Path(captioner.removeprefix("local-dir:")).expanduser()
    location = f"local-dir:{folder.absolute()}" if folder.is_dir() else captioner
    weights = check_source(location, pretrained or None)
    found = _one_hash(weights) if weights else ""
    identity = [found or [captioner, pretrained], config_mark(location)]
    return Captioner(
        engine="coca",
        location=location,
        model=folder.name if folder.is_dir() else captioner.removeprefix("hf-hub:"),
        revision=found,
        digest=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        family="coca",
        chat=False,
    )


def served_captioner(base_url: str, model: str) -> Captioner:
    """Identify a model behind an OpenAI-compatible server; the server's address is no part of it.

    What weights a server really holds cannot be known from outside; the name is all there is.
    """
    return Captioner(
        engine="http",
        location=base_url.rstrip("/"),
        model=model,
        revision="",
        digest=hashlib.sha256(model.encode()).hexdigest(),
        family="",
        chat=True,
    )


def own_captioner(name: str, engine: Any) -> Captioner:
    """Identify a captioner that is a class of the user's, by its name and revision."""
    identity = [name, str(engine.revision)]
    return Captioner(
        engine="own",
        location=name,
        model=str(engine.name),
        revision=str(engine.revision),
        digest=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        family="",
        chat=True,
    )


def hub_folder(model: str, revision: str) -> Path:
    """The hub's cached snapshot of a model: safetensors and small files only, never a pickle.

    Raises:
        ConfigError: the model cannot be fetched and is not in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = ["*.safetensors", *_SMALL_FILES]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"The captioner {model!r} is no local folder and cannot be fetched from the hub at "
            f"revision {revision!r} ({first_line})."
        ) from error


def has_chat_template(folder: Path) -> bool:
    """Whether a model folder holds a chat template, in any of the places transformers reads."""
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    for name in ("processor_config.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists() and "chat_template" in json.loads(path.read_text(encoding="utf-8")):
            return True
    return False


def _one_hash(hashes: dict[str, str]) -> str:
    """The hash of the only file, or one over several."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listing = "\n".join(f"{name} {digest}" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder} is not a captioner: its config.json is missing or unreadable ({error})."
        ) from error
    if not isinstance(config, dict):
        raise ConfigError(f"{folder} is not a captioner: its config.json holds no settings.")
    return config


def _digest(folder: Path, revision: str) -> str:
    """sha256 over the weights' hash (or the commit) and the small files."""
    small = {path for pattern in _SMALL_FILES for path in folder.glob(pattern)}
    lines = [revision, *(f"{path.name} {sha256_file(path)}" for path in sorted(small))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
