"""Where a CLIP model comes from: names, files, configs and tokenizers, checked before any work."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
import types
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from curate.base.errors import ConfigError
from curate.base.files import fingerprint, read_json, sha256_file
from curate.base.settings import nearest
from curate.base.weight_download import check_pickle, hub_folder
from curate.base.weights import SAFE_SUFFIX, weight_hashes
from curate.scoring.clip_presets import CLIP_PRESETS

_LOCAL_DIR, _HUB = "local-dir:", "hf-hub:"
# No pickle is ever asked for.
_HUB_FILES = [
    "open_clip_config.json",
    f"open_clip_model{SAFE_SUFFIX}",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "sentencepiece*",
    "spiece*",
]


def import_open_clip() -> Any:
    """The package open_clip, without wandb.

    timm, which open_clip imports, imports wandb where it is installed, for training logs that no
    scorer writes: a second of CPU in every worker.
    """
    if "open_clip" not in sys.modules and "wandb" not in sys.modules:
        sys.modules["wandb"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("open_clip")
        finally:
            del sys.modules["wandb"]
    return importlib.import_module("open_clip")


def check_source(model: str, pretrained: str | None) -> dict[str, str]:
    """Hashes of local weights (empty for published ones); ConfigError before anything loads."""
    if model.startswith(_LOCAL_DIR):
        _refuse_second_weights(model, pretrained)
        folder = Path(model.removeprefix(_LOCAL_DIR))
        if not (folder / "open_clip_config.json").is_file():
            raise ConfigError(f"{folder} holds no open_clip_config.json, so it is no CLIP folder.")
        return weight_hashes(folder)
    if model.startswith(_HUB):
        _refuse_second_weights(model, pretrained)
        return weight_hashes(hub_clip(model))
    if pretrained is None:
        hint = nearest(model, list(CLIP_PRESETS))
        raise ConfigError(
            f"The CLIP model {model!r} needs weights: a pretrained tag (such as openai) or a "
            f"{SAFE_SUFFIX} file, with --clip-pretrained or as MODEL@WEIGHTS"
            f"{'; ' + hint if hint.startswith('did') else '.'}"
        )
    if model.endswith(".json") and not Path(model).is_file():
        raise ConfigError(f"The CLIP model config {model} does not exist.")
    if Path(pretrained).suffix in (SAFE_SUFFIX, ".pt", ".pth", ".bin", ".ckpt"):
        if not pretrained.endswith(SAFE_SUFFIX):
            raise ConfigError(
                f"{pretrained} is a pickle, which can run code when it is loaded; convert the "
                f"CLIP weights to {SAFE_SUFFIX}."
            )
        if not Path(pretrained).is_file():
            raise ConfigError(f"The CLIP weights {pretrained} do not exist.")
        return weight_hashes(pretrained)
    if not model.endswith(".json"):
        _check_tag(model, pretrained)
        return {}
    raise ConfigError(f"A CLIP config of one's own needs a {SAFE_SUFFIX} file, not {pretrained!r}.")


def hub_clip(model: str) -> Path:
    """The folder of a hub model (`hf-hub:ORG/NAME` or `...@REVISION`), fetched once.

    Raises:
        ConfigError: no such repository or revision, or it is no CLIP model in safetensors.
    """
    folder = hub_folder(model, _HUB_FILES)
    for name in ("open_clip_config.json", f"open_clip_model{SAFE_SUFFIX}"):
        if not (folder / name).is_file():
            raise ConfigError(f"{model} is no CLIP model that can be loaded: it has no {name}.")
    return folder


def refuse_pickle(model: str, tag: str, allowed: Collection[str]) -> None:
    """Raise ConfigError where a pretrained tag's file is a pickle that the user did not name."""
    path = weights_file(model, tag)
    if path.suffix != SAFE_SUFFIX:
        check_pickle(path, path.name, sha256_file(path), allowed)


def weights_file(model: str, pretrained: str | None) -> Path:
    """Where a model's weights lie that `check_source` took; those of a tag are fetched once."""
    name = f"open_clip_model{SAFE_SUFFIX}"
    if model.startswith(_LOCAL_DIR):
        return Path(model.removeprefix(_LOCAL_DIR)) / name
    if model.startswith(_HUB):
        return hub_clip(model) / name
    if pretrained is not None and pretrained.endswith(SAFE_SUFFIX):
        return Path(pretrained)
    open_clip = import_open_clip()
    return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, pretrained)))


def _refuse_second_weights(model: str, pretrained: str | None) -> None:
    if pretrained is not None:
        raise ConfigError(
            f"The CLIP model {model!r} brings its own weights: give --clip-pretrained none "
            f"instead of {pretrained!r}."
        )


@cache
def _published() -> tuple[Path, Any]:
    """open_clip's folder, and its module of pretrained tags, without open_clip itself.

    Importing open_clip imports torch, seconds that the check of a name should not cost.
    """
    found = importlib.util.find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    folder, alias = Path(found.origin).parent, "_open_clip_tags"
    package = types.ModuleType(alias)
    package.__path__ = [str(folder)]
    # It does without them, and the first imports torch.
    unwanted = {"safetensors.torch", "huggingface_hub"} - sys.modules.keys()
    sys.modules.update({alias: package, **dict.fromkeys(unwanted)})  # type: ignore[dict-item]
    try:
        return folder, importlib.import_module(f"{alias}.pretrained")
    finally:
        for name in unwanted:
            del sys.modules[name]


def _check_tag(model: str, tag: str) -> None:
    folder, published = _published()
    configs = {path.stem: path for path in (folder / "model_configs").glob("*.json")}
    if model not in configs:
        hint = nearest(model, [*CLIP_PRESETS, *configs])
        raise ConfigError(f"open_clip has no model {model!r}; {hint}")
    config = read_json(configs[model])
    tags = published.list_pretrained_tags_by_model(model)
    if tag not in tags:
        raise ConfigError(f"open_clip has no weights {tag!r} for {model!r}; {nearest(tag, tags)}")
    wanted = bool(published.get_pretrained_cfg(model, tag).get("quick_gelu", False))
    if wanted != bool(config.get("quick_gelu", False)):
        plain = model.removesuffix("-quickgelu")
        right = f"{plain}-quickgelu" if wanted else plain
        raise ConfigError(
            f"The weights {tag!r} were trained {'with' if wanted else 'without'} QuickGELU and "
            f"{model!r} would shift every score; use --clip-model {right}."
        )


def registered(model: str) -> tuple[str, dict[str, Any]]:
    """open_clip's name for `model`, and options for create_model. A config file is registered."""
    if model.startswith(_HUB):
        return f"{_LOCAL_DIR}{hub_clip(model)}", {}
    if not model.endswith(".json"):
        return model, {}
    open_clip = import_open_clip()
    config = _own_config(model)
    name = f"own-{fingerprint(config['model_cfg'])}"
    if open_clip.get_model_config(name) is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(config["model_cfg"]))
            open_clip.add_model_config(path)
    return name, {"force_preprocess_cfg": config["preprocess_cfg"]}


def _own_config(model: str) -> dict[str, Any]:
    path = Path(model)
    config = read_json(path)
    if "model_cfg" not in config:
        config = {"model_cfg": config, "preprocess_cfg": {}}
    model_config = config["model_cfg"]
    missing = [name for name in ("embed_dim", "vision_cfg", "text_cfg") if name not in model_config]
    if missing:
        raise ConfigError(f"The CLIP model config {model} lacks {', '.join(missing)}.")
    # A tokenizer beside the config file is named relative to it.
    tokenizer = model_config["text_cfg"].get("hf_tokenizer_name")
    if tokenizer and (path.parent / tokenizer).is_dir():
        model_config["text_cfg"]["hf_tokenizer_name"] = str((path.parent / tokenizer).absolute())
    return {"model_cfg": model_config, "preprocess_cfg": config.get("preprocess_cfg", {})}


def config_mark(model: str) -> Any:
    """What identifies the architecture: the config's content, or the published name."""
    if model.endswith(".json"):
        return read_json(model)
    if model.startswith(_LOCAL_DIR):
        return read_json(Path(model.removeprefix(_LOCAL_DIR)) / "open_clip_config.json")
    if model.startswith(_HUB):
        return read_json(hub_clip(model) / "open_clip_config.json")
    return model
