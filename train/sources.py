"""Where parts of published pipelines and of runs lie, and how they are loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.base.errors import ConfigError
from curate.base.files import fingerprint, read_json, sha256_file
from curate.base.settings import nearest

Source = Path | str

_PACKAGED = "caplab:"
"""What a source's name begins with that comes with this package."""


def located(source: str) -> str:
    """The folder of a source that comes with this package (caplab:NAME); any other as it is.

    Raises:
        ConfigError: there is no such source.
    """
    if not source.startswith(_PACKAGED):
        return source
    shelf = Path(__file__).parent / "weights"
    names = sorted(folder.name for folder in shelf.iterdir() if folder.is_dir())
    name = source.removeprefix(_PACKAGED)
    if name not in names:
        raise ConfigError(f"There is no source {source}; {nearest(name, names)}")
    return str(shelf / name)


def packaged_mark(source: str | None) -> dict[str, str]:
    """Part -> hash of its weights, of a source that comes with this package; else nothing.

    For the identity of a run: its config holds the name, and the weights behind a name change with
    the package's version.
    """
    if source is None or not source.startswith(_PACKAGED):
        return {}
    parts = sorted(path.parent for path in Path(located(source)).glob("*/*.safetensors"))
    return {part.name: weights_hash(part) for part in parts}


def find_part(name: str, sources: Sequence[Source | None]) -> Source | None:
    """The first source that holds part `name`; a run's parts may lie in its pipeline/.

    A source that is no folder is taken for a hub id.
    """
    for source in sources:
        if source is None:
            continue
        source = located(str(source))
        folder = Path(source)
        if not folder.exists():
            return source
        for place in (folder, folder / "pipeline"):
            if (place / name).is_dir():
                return place
    return None


def refuse_missing(source: str) -> None:
    """
    Raises:
        ConfigError: `source` is no folder, nor a pipeline on the hub that can be reached. Each
            part of it would fail in its own words, after minutes of tries.
    """
    if Path(source).exists():
        return
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source):
        raise ConfigError(f"There is no folder {source}, and a hub id has the form owner/name.")
    _model_index(source)


def part_class(source: Source, name: str) -> Any:
    """The class that the pipeline's model_index.json names for a part.

    Raises:
        ConfigError: there is no such pipeline or part, or the installed library lacks the class.
    """
    import diffusers
    import transformers

    index = _model_index(source)
    library, cls = index.get(name) or (None, None)
    if cls is None:
        raise ConfigError(f"The pipeline {source} has no {name}.")
    library = transformers if library == "transformers" else diffusers
    if not hasattr(library, cls):
        raise ConfigError(
            f"{name} of {source} is a {cls}, which {library.__name__} {library.__version__} lacks."
        )
    return getattr(library, cls)


def load_part(cls: Any, source: Source, name: str, **options: Any) -> Any:
    """A tokenizer or a model (from safetensors alone) of a pipeline.

    Raises:
        ConfigError: it is not there, or cannot be read.
    """
    try:
        return cls.from_pretrained(source, subfolder=name, **options)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name} of {source} cannot be loaded: {reason}") from error


def part_folder(source: Source, name: str) -> Path:
    """The local folder that the files of a loaded part lie in."""
    from transformers.utils import cached_file

    return Path(str(cached_file(source, "config.json", subfolder=name))).parent


def weights_hash(folder: Path) -> str:
    """16 hex digits of all safetensors files that a part was loaded from."""
    # model.fp16.safetensors and the like are other precisions, which were not loaded.
    files = sorted(path for path in folder.glob("*.safetensors") if len(path.suffixes) == 1)
    return fingerprint([sha256_file(path) for path in files])


def _model_index(source: Source) -> dict[str, Any]:
    from diffusers import DiffusionPipeline

    if Path(source).exists():
        path = Path(source) / "model_index.json"
        if not path.exists():
            raise ConfigError(f"{source} is no pipeline: it has no model_index.json.")
        index: dict[str, Any] = read_json(path)
        return index
    try:
        return dict(DiffusionPipeline.load_config(str(source)))
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"{source} is neither a folder nor a pipeline on the hub that can be reached."
        ) from error
