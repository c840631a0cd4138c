"""Where a head comes from: a published name, a URL, a hub file, or a file of a known kind."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from curate.base.errors import ConfigError
from curate.base.settings import nearest
from curate.base.weight_download import (
    HUB,
    Convert,
    converted,
    fetch,
    hub_file,
    keep_safetensors,
    split_hash,
)
from curate.base.weights import SAFE_SUFFIX
from curate.scoring.scorers.heads import convert_head
from curate.scoring.scorers.keras_head import convert_keras_head
from curate.scoring.scorers.published import PUBLISHED, Published, by_file_name


def find_head(source: str, allow_pickle: Collection[str] = ()) -> Path:
    """The head of `source` as a local .safetensors file (see curate.base.weight_download).

    Raises:
        ConfigError: no such name or file, a wrong hash, or a pickle that the user did not name.
    """
    name, sha256 = split_hash(source)
    entry = PUBLISHED.get(name)
    if entry is not None:
        if entry.kind == "watermark":
            raise ConfigError(f"{name} is no head on an embedding; give it to --watermark-model.")
        return _published(name, entry, sha256, allow_pickle)
    if _is_plain_name(name):
        heads = [known for known, one in PUBLISHED.items() if one.kind != "watermark"]
        raise ConfigError(f"There is no published head {name!r}; {nearest(name, heads)}")
    path = Path(name)
    if path.suffix == SAFE_SUFFIX and not name.startswith((HUB, "http://", "https://")):
        if not path.is_file():
            raise ConfigError(f"The head {name} does not exist.")
        if sha256 is not None:
            fetch(name, sha256, path.parent)
        return path
    if path.suffix == SAFE_SUFFIX and name.startswith(HUB) and sha256 is None:
        return hub_file(name)
    known = by_file_name(path.name)
    return converted(
        name, _conversion(known, path), mark="head", sha256=sha256, allow_pickle=allow_pickle
    )


def _published(
    name: str, entry: Published, sha256: str | None, allow_pickle: Collection[str]
) -> Path:
    sha256 = sha256 or entry.sha256
    if sha256 is None:
        raise ConfigError(
            f"The sha256 of {name} ({entry.url}) is not known here; give it as "
            f"{name}#sha256=HEX, or download the file and give its path."
        )
    return converted(
        entry.url,
        _conversion(entry, Path(entry.file_name)),
        mark=name,
        sha256=sha256,
        allow_pickle={*allow_pickle, sha256} if name in allow_pickle else allow_pickle,
    )


def _conversion(known: Published | None, path: Path) -> Convert:
    if path.suffix == SAFE_SUFFIX:
        return keep_safetensors
    if path.suffix == ".zip":
        return lambda source, target, _: convert_keras_head(source, target)
    if known is None or known.kind != "linear":
        raise ConfigError(
            f"{path.name} does not say what stands between its layers; write it as a head with "
            "curate.scoring.scorers.heads.convert_head, which takes the activation, and give that "
            "file."
        )
    return lambda source, target, trusted: convert_head(
        source,
        target,
        activation=known.activation,
        output="sigmoid" if known.output == "sigmoid" else "score",
        allow_pickle=trusted,
    )


def _is_plain_name(name: str) -> bool:
    return "/" not in name and "." not in name and ":" not in name
