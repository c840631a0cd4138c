"""A network of the table as the trainer sees it: built from nothing, or loaded with weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.base.errors import ConfigError
from curate.base.files import read_json
from curate.base.settings import nearest
from train.backbones.calls import Inputs
from train.backbones.initial import initialise
from train.backbones.rows import ROWS, Around, Row
from train.model_settings import ModelConfig
from train.protocols import TextFeatures

# Above this many patches PyTorch's fused attention wins on a CPU as well.
MATMUL_ATTENTION_TOKENS = 512
# Kinds whose gates stand in a table of their own, so that `initial_gate` can set them.
GATED_BY_TABLE = ("pixart", "sana")


class DiffusersBackbone(nn.Module):
    """One of diffusers' networks behind the call that the loop and the sampler make."""

    def __init__(self, inner: nn.Module, row: Row) -> None:
        super().__init__()
        self.inner = inner
        self.row = row

    @property
    def config(self) -> dict[str, Any]:
        """Arguments of the network's class."""
        return dict(self.inner.config)  # type: ignore[arg-type]

    @property
    def pipeline(self) -> str:
        """diffusers' pipeline that this network is part of."""
        return self.row.pipeline_of(self.config)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: TextFeatures,
        size_ids: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Output (B, C, h, w), see `Backbone`.

        `guidance` is told to networks that were distilled to imitate it (Flux): 1 in training,
        the pipeline's scale in sampling; others do not read it.
        """
        return self.row.call(self.inner, Inputs(x, time, text, size_ids, guidance))

    @contextmanager
    def reading_text_once(self) -> Iterator[None]:
        """Inside, what is made of the text alone (keys, values) is kept from the first call on.

        For calls with one and the same text. Compiled blocks would be compiled anew.
        """
        layers = [m for name, m in self.inner.named_modules() if name.endswith(self.row.reads_text)]
        if any(block._compiled_call_impl is not None for block in self.blocks()):
            layers = []
        for layer in layers:
            layer.forward = _once(layer.forward)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def blocks(self) -> list[nn.Module]:
        """The repeated blocks, in order."""
        found: list[nn.Module] = []
        for name in self.row.blocks:
            part = self.inner.get_submodule(name)
            found += list(part) if isinstance(part, nn.ModuleList) else [part]
        return found


def build_backbone(
    config: ModelConfig,
    text_width: int,
    pooled_width: int,
    channels: int,
    seed: int,
    factor: int | None = None,
) -> DiffusersBackbone:
    """A network from nothing, on the default device in float32 (on meta, without its weights).

    Arguments of its class, in falling order: `config.backbone.config`, what follows from the
    parts around it, those of `config.source` where that has a network of this class (it may be
    there for its frozen parts alone, or not to be reached), the class's defaults.

    Args:
        text_width, pooled_width: of what the text encoder gives; 0 = no pooled text.
        channels: of a latent or picture.
        seed: of the weights.
        factor: pixels a side of one latent; None = 1, for pixels alone.

    Raises:
        ConfigError: the arguments do not fit each other, the class or the parts around.
    """
    row = row_of(config.backbone.kind)
    if config.backbone.initial_gate and config.backbone.kind not in GATED_BY_TABLE:
        raise ConfigError(
            f"initial_gate is for backbones of kind {' and '.join(GATED_BY_TABLE)}, and this one "
            f"is {config.backbone.kind}."
        )
    arguments = _arguments(config, row, text_width, pooled_width, channels, factor)
    _check(arguments, row, config.backbone.kind, text_width, pooled_width, channels)
    inner = _made(row, arguments)
    if not any(parameter.is_meta for parameter in inner.parameters()):
        initialise(inner, row.part, seed, config.backbone.initial_gate)
    return DiffusersBackbone(inner.eval(), row)


def load_backbone(
    source: str | Path,
    config: ModelConfig,
    dtype: torch.dtype = torch.float32,
    text_width: int | None = None,
    pooled_width: int | None = None,
    channels: int | None = None,
) -> DiffusersBackbone:
    """A network with its weights: of a pipeline's folder, a run or the hub (safetensors alone).

    Its class's arguments are those that lie with the weights, whatever `config` says.
    `text_width`, `pooled_width` and `channels` are checked where they are given.

    Raises:
        ConfigError: there is none, it is another kind of network, or its arguments do not fit.
    """
    row = row_of(config.backbone.kind)
    arguments = {**_defaults(row), **_stored_config(source, row)}
    _check(arguments, row, config.backbone.kind, text_width, pooled_width, channels)
    try:
        inner, found = _network(row).from_pretrained(
            _place(source),
            subfolder=row.part,
            use_safetensors=True,
            torch_dtype=dtype,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"The weights of {row.part} in {source} cannot be read ({_first_line(error)})."
        ) from error
    # diffusers would leave them random.
    if found["missing_keys"]:
        raise ConfigError(f"The {row.part} in {source} lacks {found['missing_keys'][0]}.")
    return DiffusersBackbone(inner.eval(), row)


def row_of(kind: str) -> Row:
    """The row of that name.

    Raises:
        ConfigError: there is none.
    """
    if kind not in ROWS:
        raise ConfigError(f"There is no backbone of kind {kind!r}; {nearest(kind, list(ROWS))}")
    return ROWS[kind]


def use_fast_attention(backbone: DiffusersBackbone, device: torch.device, tokens: int) -> None:
    """Choose the attention that is fastest on `device` for pictures of `tokens` patches.

    PyTorch's fused attention has a backward pass on CPU that is up to 15 times slower than two
    matmuls and a softmax at the sequence lengths of small models; on CUDA it is the fast one.
    Networks whose attention is of a kind of their own (joint, rotary, linear) keep it.
    """
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    inner: Any = backbone.inner
    plain = device.type == "cpu" and tokens <= MATMUL_ATTENTION_TOKENS
    chosen = AttnProcessor if plain else AttnProcessor2_0
    usual = (AttnProcessor, AttnProcessor2_0)
    if hasattr(inner, "set_attn_processor"):
        processors = inner.attn_processors.items()
        inner.set_attn_processor(
            {name: chosen() if type(old) in usual else old for name, old in processors}
        )


def compile_blocks(backbone: DiffusersBackbone) -> None:
    """torch.compile each block in place: blocks of one shape share their code, names stay."""
    for block in backbone.blocks():
        block.compile()


def use_activation_checkpointing(backbone: DiffusersBackbone) -> None:
    """Compute each block again in the backward pass rather than keep what it needs.

    Raises:
        ConfigError: this class of networks cannot.
    """
    inner: Any = backbone.inner
    if not inner._supports_gradient_checkpointing:
        raise ConfigError(f"{backbone.row.network} has no activation_checkpointing.")
    inner.enable_gradient_checkpointing()


def flops_per_picture(
    backbone: DiffusersBackbone, height: int, width: int, text_tokens: int
) -> float:
    """Floating-point operations of one picture's forward and backward pass, 2 a multiply-add.

    Counted on the meta device, for x of `height` x `width` latents; the backward pass is taken
    as two forward ones, and what activation checkpointing computes again is not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    row, config = backbone.row, backbone.config
    with torch.device("meta"):
        inner = _made(row, config).eval()
        shadow = DiffusersBackbone(inner.to("meta"), row)
        pooled = config.get(row.pooled) if row.pooled else None
        if row.reads_sizes(config) and row.part == "unet":
            pooled = _pooled_of_unet(config)
        text = TextFeatures(
            torch.empty(1, text_tokens, config[row.text]),
            torch.empty(1, text_tokens),
            None if pooled is None else torch.empty(1, pooled),
        )
        x = torch.empty(1, config[row.channels] // row.packing, height, width)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            shadow(x, torch.empty(1), text, torch.empty(1, 6))
    return 3.0 * counter.get_total_flops()


def _once(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    kept: list[Tensor] = []

    def first(*given: Any, **named: Any) -> Tensor:
        if not kept:
            kept.append(forward(*given, **named))
        return kept[0]

    return first


def _network(row: Row) -> Any:
    import diffusers

    return getattr(diffusers, row.network)


def _defaults(row: Row) -> dict[str, Any]:
    parameters = inspect.signature(_network(row).__init__).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def _place(source: str | Path) -> str | Path:
    """Where a source's pipeline lies: a run keeps it in a folder of its own."""
    inside = Path(source) / "pipeline"
    return inside if inside.is_dir() else source


def _stored_config(source: str | Path, row: Row) -> dict[str, Any]:
    """Arguments of the network in a pipeline's folder or on the hub."""
    try:
        stored = _network(row).load_config(_place(source), subfolder=row.part)
    except OSError as error:
        raise ConfigError(
            f"There is no {row.part} of a pipeline at {source} ({_first_line(error)})."
        ) from error
    found = stored.get("_class_name")
    if found == "Transformer2DModel" and stored.get("norm_type") == "ada_norm_single":
        # The published PixArts are older than the class of their own.
        found = "PixArtTransformer2DModel"
    if found != row.network:
        raise ConfigError(f"The {row.part} in {source} is a {found}, not a {row.network}.")
    known = _defaults(row)
    return {name: value for name, value in stored.items() if name in known}


def _lent(source: str, row: Row) -> dict[str, Any]:
    """Arguments of a source's network; none where it holds another, or cannot be reached.

    Raises:
        DatasetError: its folder holds one that is cut.
    """
    try:
        return _stored_config(source, row)
    except ConfigError:
        file = Path(_place(source)) / row.part / "config.json"
        if file.exists():
            read_json(file)
        return {}


def _arguments(
    config: ModelConfig,
    row: Row,
    text_width: int,
    pooled_width: int,
    channels: int,
    factor: int | None,
) -> dict[str, Any]:
    own, defaults = config.backbone.config, _defaults(row)
    unknown = sorted(set(own) - set(defaults))
    if unknown:
        raise ConfigError(
            f"{row.network} has no argument {unknown[0]!r}; {nearest(unknown[0], list(defaults))}"
        )
    stored: dict[str, Any] = {}
    if config.source is not None:
        stored = _lent(config.source, row)
    if factor is None and config.latents.kind == "pixels":
        factor = 1
    if factor is None:
        raise ValueError("factor is needed: how many pixels a side of a latent stands for")
    side = config.resolution // factor
    around = Around(channels, side, text_width, pooled_width, config.backbone.position_span)
    arguments = {**defaults, **row.usual({**defaults, **stored, **own}), **stored, **own}
    widths: dict[str, Any] = {row.channels: channels * row.packing, row.text: text_width}
    if row.pooled is not None:
        widths[row.pooled] = pooled_width
    arguments |= {**widths, **row.settled(arguments, around), **own}
    divisor = row.divisor(arguments)
    if side % divisor:
        raise ConfigError(
            f"At {config.resolution} px the backbone's input has a side of {side}, which is no "
            f"multiple of {divisor}."
        )
    return arguments


def _check(
    arguments: dict[str, Any],
    row: Row,
    kind: str,
    text_width: int | None,
    pooled_width: int | None,
    channels: int | None,
) -> None:
    """Refuse a network that does not fit what stands around it."""
    pooled = arguments.get(row.pooled) if row.pooled else None
    if row.part == "unet" and row.reads_sizes(arguments):
        pooled = _pooled_of_unet(arguments)
    if pooled is not None and pooled_width == 0:
        raise ConfigError(f"The backbone ({kind}) reads pooled text, and no encoder gives any.")
    at_128 = row.sized_pipeline == "PixArtAlphaPipeline"
    if at_128 and row.reads_sizes(arguments) and arguments["sample_size"] != 128:
        raise ConfigError("PixArtAlphaPipeline tells sizes at a sample_size of 128 alone.")
    inputs = arguments[row.channels] // row.packing
    for what, own, around in (
        ("text features", arguments[row.text], text_width),
        ("pooled text", pooled, pooled_width),
        ("latents", inputs, channels),
    ):
        if own is not None and around is not None and own != around:
            raise ConfigError(
                f"The backbone ({kind}) takes {what} of width {own}, and the model's other parts "
                f"give {around}."
            )


def _pooled_of_unet(config: dict[str, Any]) -> int:
    sizes = 6 * config["addition_time_embed_dim"]
    return int(config["projection_class_embeddings_input_dim"] - sizes)


def _made(row: Row, arguments: dict[str, Any]) -> nn.Module:
    known = _defaults(row)
    try:
        network: nn.Module = _network(row)(**{k: v for k, v in arguments.items() if k in known})
    except (ValueError, TypeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"{row.network} cannot be built with these arguments ({_first_line(error)})."
        ) from error
    return network


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
