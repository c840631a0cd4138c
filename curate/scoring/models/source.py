"""Which model of transformers is meant, and which of its labels: `MODEL@LABEL+LABEL`.

    hf-hub:ORG/NAME@LABEL              at the hub's main branch
    hf-hub:ORG/NAME@REVISION@LABEL     at a branch, tag or commit
    FOLDER@LABEL                       as save_pretrained writes it

What stands behind the last @ is the label, so a revision never stands alone. Several labels are
joined by +; where the model has a label that itself holds one, and the parts are labels as well, no
reading is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.base.errors import ConfigError
from curate.base.files import read_json, sha256_file
from curate.base.settings import nearest
from curate.base.weight_download import HUB, hub_folder
from curate.base.weights import SAFE_SUFFIX

_REVISION_FIRST = f"a revision stands before the label: {HUB}ORG/NAME@REVISION@LABEL"


def split_labels(given: str) -> tuple[str, str]:
    """(model, its labels as they were given, "" for none) of `MODEL@LABEL`.

    Raises:
        ConfigError: an @ too many, or one with nothing behind it.
    """
    if given.startswith(HUB):
        model, *rest = given.split("@")
        if len(rest) > 2 or not all(part.strip() for part in rest):
            raise ConfigError(f"{given!r} cannot be read; {_REVISION_FIRST}.")
        return "@".join([model, *rest[:-1]]), rest[-1] if rest else ""
    parts = given.split("@")  # either side may hold one
    splits = [("@".join(parts[:n]), "@".join(parts[n:])) for n in range(1, len(parts) + 1)]
    found = [(folder, label) for folder, label in splits if folder and Path(folder).is_dir()]
    if len(found) > 1:
        (first, label), (second, _) = found[:2]
        raise ConfigError(
            f"{given!r} can be the folder {second!r}, and the label {label!r} of the folder "
            f"{first!r}; rename one of them."
        )
    return found[0] if found else (given, "")


def label_indices(source: str, known: Mapping[int, str], given: str) -> list[int]:
    """Numbers of the labels that `given` names, one or several joined by +, in any case.

    Raises:
        ConfigError: no such label, or two ways to read it.
    """
    names = {name.lower() for name in known.values()}
    whole, parts = given.strip(), [part.strip() for part in given.split("+")]
    joined = len(parts) > 1 and all(part.lower() in names for part in parts)
    if joined and whole.lower() in names:
        raise ConfigError(f"{source} has a label {whole!r}, and those that + joins here as well.")
    try:
        return numbers_of(source, known, parts if joined else [whole])
    except ConfigError as error:
        if len(parts) > 1 and whole.lower() not in names:
            return numbers_of(source, known, parts)  # says which of them it lacks
        if whole and source.startswith(HUB) and "@" not in source:
            raise ConfigError(f"{str(error).rstrip('.')} ({_REVISION_FIRST}).") from error
        raise


def numbers_of(source: str, known: Mapping[int, str], labels: Sequence[str]) -> list[int]:
    """Numbers of the labels of these names, in any case.

    Raises:
        ConfigError: none is given, one is not there, or one is the name of several classes.
    """
    if not any(labels):
        raise ConfigError(f"Say which labels of {source} count: {_listed(known)}.")
    found: list[int] = []
    for label in labels:
        same = [number for number, name in known.items() if name.lower() == label.lower()]
        if not same:
            near = nearest(label.lower(), [name.lower() for name in known.values()])
            if len(known) > _MOST_LISTED and near.startswith("valid"):
                near = f"it has {_listed(known)}."
            raise ConfigError(f"{source} has no label {label!r}; {near}")
        if len(same) > 1:
            raise ConfigError(f"{source} calls {len(same)} classes {label!r}; none can be meant.")
        found += same
    return sorted(set(found))


_MOST_LISTED = 30


def _listed(known: Mapping[int, str]) -> str:
    names = list(known.values())
    more = f" and {len(names) - _MOST_LISTED:,} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def labels_of(folder: Path) -> dict[int, str]:
    """Number -> label of a model; where its config.json names none, as transformers fills them in.

    Raises:
        ConfigError: transformers does not know such a model.
    """
    config = read_json(folder / "config.json")
    named = config.get("id2label") or dict(enumerate(config.get("label_names") or []))
    if not named:
        from transformers import AutoConfig

        try:
            named = AutoConfig.from_pretrained(folder).id2label
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigError(f"{folder} is no model that transformers knows.") from error
    return {int(number): str(name) for number, name in named.items()}


def model_folder(source: str, kind: str, needs: Sequence[str] = ()) -> Path:
    """The folder of a model of transformers: its configs, and weights in safetensors.

    Args:
        source: hf-hub:ORG/NAME, with @REVISION, or a folder.
        kind: what it should be, for the message, such as "image classifier".
        needs: files besides config.json that it cannot do without.

    Raises:
        ConfigError: there is no such model, a file is missing, or its weights are a pickle.
    """
    if source.startswith(HUB):
        folder = hub_folder(source, ["*.json", "*.jinja", "*.txt", "*.model", f"*{SAFE_SUFFIX}"])
    else:
        folder = Path(source)
    for name in ("config.json", *needs):
        if not (folder / name).is_file():
            raise ConfigError(f"{source} is no {kind} of transformers: no {name}.")
    if not list(folder.glob(f"*{SAFE_SUFFIX}")):
        raise ConfigError(
            f"{source} has no weights in {SAFE_SUFFIX}; a pickle is never loaded, so convert them."
        )
    return folder


def small_files(folder: Path) -> dict[str, Any]:
    """Name -> content of the configs that decide, beside the weights, what a model says."""
    found = {path.name: path for path in folder.glob("*.json")}
    ours = ("config.json", "preprocessor_config.json", "processor_config.json")
    return {name: read_json(found[name]) for name in ours if name in found}


def text_files(folder: Path) -> dict[str, str]:
    """Name -> sha256 of what decides how a question is put: the chat template and the tokenizer."""
    names = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json", "tokenizer.json")
    return {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}
