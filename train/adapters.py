"""Fine-tuning of a small part: low-rank adapters (LoRA), and embeddings of new tokens alone.

Both freeze everything else; what is trained, checkpointed and averaged are the parameters that
still ask for gradients, under the names that the model gives them. What is written is what
diffusers' pipelines read: `load_lora_weights` and `load_textual_inversion`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import atomic_path
from curate.base.seeds import generator_of
from curate.base.weights import load_state_dict
from train.backbones.conditions import CONDITIONS_FILE
from train.settings import seed_of
from train.text.new_tokens import add_tokens as extend
from train.text.new_tokens import extended

if TYPE_CHECKING:
    from train.model import TextToImage, Trained
    from train.settings import TrainSettings

LORA_FILE = "pytorch_lora_weights.safetensors"


def add_lora(model: TextToImage, settings: TrainSettings) -> None:
    """Low-rank adapters on the backbone's `lora_targets`; only they are trained from now on
    (and the embeddings of scores that the model is told).

    Hu et al. 2021 (arXiv 2106.09685): W + alpha / rank * B A, with B = 0 at the start and A
    normal of standard deviation 1 / rank, drawn from (seed, its name).

    Raises:
        ConfigError: no layer of the backbone is named like that.
    """
    from peft import LoraConfig, inject_adapter_in_model

    inner, targets = model.backbone.inner, list(settings.lora_targets)
    names = [name for name, part in inner.named_modules() if isinstance(part, nn.Linear)]
    if not any(name == end or name.endswith(f".{end}") for name in names for end in targets):
        ends = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"No layer of the network ends in {' or '.join(targets)} (lora_targets); its linear "
            f"layers end in {', '.join(ends)}."
        )
    model.requires_grad_(False)
    if model.conditions is not None:
        model.conditions.requires_grad_(True)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or settings.lora_rank,
        target_modules=targets,
        init_lora_weights="gaussian",
    )
    if hasattr(inner, "add_adapter"):
        inner.add_adapter(config)
    else:  # diffusers' class knows no adapters of its own (PixArt)
        inject_adapter_in_model(config, inner)
    with torch.no_grad():
        for name, parameter in inner.named_parameters():
            if ".lora_A." in name:
                generator = generator_of(seed_of(settings, "weights"), name)
                parameter.normal_(0, 1 / settings.lora_rank, generator=generator)


def has_lora(model: TextToImage) -> bool:
    """Whether the backbone carries adapters."""
    return bool(getattr(model.backbone.inner, "peft_config", None))


def lora_weights(inner: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights by peft's names, float32 on the CPU."""
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(inner)
    return {name: weight.detach().cpu().float().contiguous() for name, weight in weights.items()}


def save_lora(trained: Trained, folder: Path) -> Path:
    """Write the adapters as `pipe.load_lora_weights(folder)` reads them; their file.

    Where the family's pipeline has no such method (PixArt, PRX), peft's own files stand beside
    it: `PeftModel.from_pretrained(pipe.transformer, folder)`.
    """
    import diffusers
    from safetensors.torch import save_file

    backbone = trained.model.backbone
    inner, part = backbone.inner, backbone.row.part
    weights, config = lora_weights(inner), inner.peft_config["default"]
    # Sets have no order; files of equal runs are equal.
    about = {
        f"{part}.{name}": sorted(value) if isinstance(value, set) else value
        for name, value in config.to_dict().items()
    }
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(about, sort_keys=True)}
    folder.mkdir(parents=True, exist_ok=True)
    prefixed = {f"{part}.{name}": weight for name, weight in weights.items()}
    save_file(prefixed, folder / LORA_FILE, metadata=metadata)
    _order_header(folder / LORA_FILE)
    if not hasattr(getattr(diffusers, backbone.pipeline), "load_lora_weights"):
        config.save_pretrained(folder)
        peft_names = {f"base_model.model.{name}": weight for name, weight in weights.items()}
        save_file(peft_names, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder / LORA_FILE


def _order_header(file: Path) -> None:
    """Sort the metadata of a safetensors file, which are written in an order by chance."""
    whole = file.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    # Tensors begin at multiples of 8 bytes.
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(file) as temporary:
        temporary.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])


def load_lora(model: TextToImage, file: Path) -> None:
    """Fill the backbone's adapters from a file that `save_lora` wrote; they are added if missing.

    Raises:
        DatasetError: it is no such file.
        ConfigError: its adapters are not those of the backbone.
    """
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    inner, part = model.backbone.inner, model.backbone.row.part
    try:
        with safe_open(file, "pt") as stored:
            about = json.loads((stored.metadata() or {}).get("lora_adapter_metadata", "{}"))
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise DatasetError(f"{file} cannot be read as adapters ({error}).") from error
    told = {
        name: about.get(f"{part}.{name}")
        for name in ("r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern")
    }
    if None in (told["r"], told["lora_alpha"], told["target_modules"]):
        raise DatasetError(f"{file} does not say the rank and layers of adapters of a {part}.")
    if not has_lora(model):
        told = {name: value for name, value in told.items() if value is not None}
        inject_adapter_in_model(LoraConfig(**told), inner)
    names = {name.removeprefix(f"{part}."): weight for name, weight in weights.items()}
    own = lora_weights(inner)
    if {n: w.shape for n, w in own.items()} != {n: w.shape for n, w in names.items()}:
        raise ConfigError(
            f"The adapters of {file} have rank {told['r']} on {', '.join(told['target_modules'])}; "
            f"this run asks for others (lora_rank, lora_targets)."
        )
    set_peft_model_state_dict(inner, names)


@torch.no_grad()
def merge_lora(inner: nn.Module) -> nn.Module:
    """`inner` with its adapters added into the weights for good, a plain network again.

    Raises:
        ConfigError: the weights are quantised, so that nothing can be added to them exactly.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(n, part) for n, part in inner.named_modules() if isinstance(part, BaseTunerLayer)]
    for name, layer in layers:
        base = layer.get_base_layer()
        if not base.weight.is_floating_point():
            raise ConfigError("Adapters cannot be merged into a quantised network (quantise_base).")
        layer.merge()
        parent, _, own = name.rpartition(".")
        setattr(inner.get_submodule(parent), own, base)
    del inner.peft_config
    if hasattr(inner, "_hf_peft_config_loaded"):
        vars(inner)["_hf_peft_config_loaded"] = False
    return inner


def with_lora_merged(inner: nn.Module) -> nn.Module:
    """`inner` itself, or a copy with its adapters merged: two networks in memory for a while."""
    return merge_lora(copy.deepcopy(inner)) if getattr(inner, "peft_config", None) else inner


def add_tokens(model: TextToImage, settings: TrainSettings) -> None:
    """New tokens in every text encoder (textual inversion; Gal et al. 2022, arXiv 2208.01618).

    Only their embeddings are trained from now on.

    Raises:
        ConfigError: the family's pipeline reads no embeddings, or a token or word does not fit.
    """
    import diffusers

    pipeline = model.backbone.pipeline
    if not hasattr(getattr(diffusers, pipeline), "load_textual_inversion"):
        raise ConfigError(
            f"new_tokens: diffusers' {pipeline} cannot load embeddings; train adapters (lora_rank)."
        )
    model.requires_grad_(False)
    extend(model.text, settings.new_tokens)


def embedding_file(part: str) -> str:
    """Name of the file of a text encoder's embeddings."""
    return f"learned_embeds{part.removeprefix('text_encoder')}.safetensors"


def save_new_tokens(model: TextToImage, folder: Path) -> None:
    """Write token -> embedding (D,), a file an encoder, as `load_textual_inversion` reads it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for part, embedding in extended(model.text).items():
        save_file(embedding.learned(), folder / embedding_file(part), metadata={"format": "pt"})


@torch.no_grad()
def load_new_tokens(model: TextToImage, folder: Path) -> None:
    """Fill the embeddings of a model that `add_tokens` prepared.

    Raises:
        DatasetError: a file is missing, or is of other tokens.
    """
    for part, embedding in extended(model.text).items():
        file = folder / embedding_file(part)
        try:
            stored = load_state_dict(file)
        except ConfigError as error:
            raise DatasetError(str(error)) from error
        shapes = {token: vector.shape for token, vector in stored.items()}
        if shapes != dict.fromkeys(embedding.tokens, embedding.rows[0].shape):
            raise DatasetError(f"{file} is not of {', '.join(embedding.tokens)}.")
        embedding.rows.copy_(torch.stack([stored[token] for token in embedding.tokens]))


def load_adapters(model: TextToImage, settings: TrainSettings, run: Path) -> None:
    """Fill adapters or embeddings, and told scores, with those of a finished run.

    Raises:
        DatasetError: they are lost, or are others.
    """
    if settings.new_tokens:
        load_new_tokens(model, run)
        return
    load_lora(model, run / "lora" / LORA_FILE)
    if model.conditions is not None:
        try:
            model.conditions.fill(run / "lora" / CONDITIONS_FILE)
        except ConfigError as error:
            raise DatasetError(f"{error} Delete the run's directory and train it again.") from error


def quantise(backbone: Any, folder: Path | str, kind: str) -> None:
    """Put a quantised copy of `folder`'s network, by diffusers, in the place of the backbone's.

    Args:
        kind: "int8" or "nf4" (Dettmers et al. 2023, arXiv 2305.14314).

    Raises:
        ConfigError: the package that does it is not installed.
    """
    options = _quantisation(kind)
    backbone.inner = type(backbone.inner).from_pretrained(
        folder,
        subfolder=backbone.row.part,
        quantization_config=options,
        torch_dtype=torch.bfloat16,
    )
    backbone.inner.requires_grad_(False)


def _quantisation(kind: str) -> Any:
    from importlib import import_module
    from importlib.util import find_spec

    import diffusers

    if find_spec("bitsandbytes"):
        if kind == "int8":
            return diffusers.BitsAndBytesConfig(load_in_8bit=True)
        return diffusers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
    if kind == "int8" and find_spec("torchao"):
        torchao = import_module("torchao.quantization")
        return diffusers.TorchAoConfig(torchao.Int8WeightOnlyConfig())
    packages = "bitsandbytes or torchao" if kind == "int8" else "bitsandbytes"
    raise ConfigError(f"quantise_base {kind} needs the package {packages}, which is not installed.")
