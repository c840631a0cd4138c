"""Networks from nothing and with weights, what is refused, and how they are computed."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from curate.base.errors import ConfigError, DatasetError
from tests.train.backbones.tiny_networks import (
    SIDE,
    TEXT_WIDTH,
    TINY,
    pooled_width,
    tiny_backbone,
    tiny_config,
)
from train.backbones import (
    DiffusersBackbone,
    build_backbone,
    compile_blocks,
    flops_per_picture,
    is_hidden_matrix,
    load_backbone,
    use_activation_checkpointing,
    use_fast_attention,
)
from train.model import TextToImage
from train.model_settings import ModelConfig
from train.protocols import TextFeatures
from train.settings import load_train_settings, model_config

CPU = torch.device("cpu")


def world(seed: int, **backbone: object) -> DiffusersBackbone:
    """The small world's network."""
    config = model_config(load_train_settings(None, {"model": "world-small"}))
    own = config.backbone.model_copy(update=backbone)
    return build_backbone(config.model_copy(update={"backbone": own}), 128, 0, 3, seed)


def asked(name: str, batch: int = 2) -> tuple:
    """Random input of a tiny network, with some padding."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(batch, 7)
    mask[0, 4:] = 0
    pooled = torch.randn(batch, pooled_width(name) or 1, generator=generator)
    text = TextFeatures(torch.randn(batch, 7, TEXT_WIDTH, generator=generator), mask, pooled)
    x = torch.randn(batch, 4, SIDE, SIDE, generator=generator)
    time = torch.linspace(100, 900, batch)
    size_ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * batch)
    return x, time, text, size_ids


def sums(backbone: DiffusersBackbone) -> dict[str, float]:
    return {name: p.double().abs().sum().item() for name, p in backbone.named_parameters()}


def test_the_worlds_weights_are_a_function_of_the_seed_and_what_they_were() -> None:
    first = sums(world(0))
    assert first == sums(world(0))
    assert first != sums(world(1))
    # As the first version of the trainer drew them, on the same names.
    assert first["inner.pos_embed.proj.weight"] == pytest.approx(141.16303875758325, rel=1e-12)
    assert first["inner.transformer_blocks.3.attn2.to_q.weight"] == pytest.approx(
        632.9452422881463, rel=1e-12
    )


def test_a_transformer_from_nothing_is_silent_and_the_gate_can_be_opened() -> None:
    gates = world(0, initial_gate=0.5).inner.transformer_blocks[1].scale_shift_table[[2, 5]]
    assert (gates == 0.5).all()
    config = tiny_config("sd3")
    gated = config.backbone.model_copy(update={"initial_gate": 0.5})
    with pytest.raises(ConfigError, match="initial_gate is for"):
        build_backbone(config.model_copy(update={"backbone": gated}), 16, 12, 4, 0, factor=8)


@pytest.mark.parametrize("name", TINY)
def test_from_nothing_the_output_is_zero_and_learning_starts(name: str) -> None:
    backbone = build_backbone(tiny_config(name), TEXT_WIDTH, pooled_width(name), 4, 0, factor=8)
    output = backbone(*asked(name))
    assert output.shape == (2, 4, SIDE, SIDE)
    assert output.abs().max() == 0
    (output - torch.randn(output.shape)).square().mean().backward()
    moved = [n for n, p in backbone.named_parameters() if p.grad is not None and p.grad.any()]
    assert moved
    last = ("proj_out", "conv_out", "final_layer")
    assert all(any(part in n for part in last) for n in moved if n.endswith("weight"))


@pytest.mark.parametrize("name", TINY)
def test_muon_gets_matrices_between_hidden_layers_alone(name: str) -> None:
    backbone = tiny_backbone(name)
    hidden = {n for n, p in backbone.named_parameters() if is_hidden_matrix(n, p)}
    in_blocks = {
        f"inner.{n}"
        for n, module in backbone.inner.named_modules()
        if isinstance(module, nn.Linear)
        and any(f"{block}." in f"{n}." for block in backbone.row.blocks)
    }
    wanted = {
        f"{n}.weight"
        for n in in_blocks
        if not any(part in n for part in ("norm", "_mod", "modulation", "adaLN", "time_emb_proj"))
    }
    outside = {n for n in hidden if n not in wanted}
    assert wanted <= hidden
    assert all("caption_projection" in n for n in outside)
    assert hidden


def test_muon_gets_no_embeddings_of_text_encoders() -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10}
    clip = CLIPTextConfig(
        hidden_size=8, intermediate_size=12, projection_dim=6, eos_token_id=1, **small
    )
    t5 = T5Config(vocab_size=10, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2)
    for model, count in ((CLIPTextModelWithProjection(clip), 6), (T5EncoderModel(t5), 6)):
        hidden = [n for n, p in model.named_parameters() if is_hidden_matrix(f"text.model.{n}", p)]
        assert len(hidden) == count, hidden


@pytest.mark.parametrize("name", TINY)
def test_saved_weights_are_read_again(name: str, tmp_path: Path) -> None:
    backbone = tiny_backbone(name)
    backbone.inner.save_pretrained(tmp_path / "pipeline" / backbone.row.part)
    again = load_backbone(
        tmp_path, tiny_config(name), torch.float32, TEXT_WIDTH, pooled_width(name), 4
    )
    with torch.no_grad():
        assert torch.equal(again(*asked(name)), backbone(*asked(name)))
    half = load_backbone(tmp_path / "pipeline", tiny_config(name), torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path: Path) -> None:
    backbone = tiny_backbone("sd3")
    backbone.inner.save_pretrained(tmp_path / "transformer")
    config = tiny_config("sd3")
    with pytest.raises(ConfigError, match=r"takes text features of width 16, and .* give 20"):
        load_backbone(tmp_path, config, text_width=20)
    with pytest.raises(ConfigError, match="takes latents of width 4, and"):
        load_backbone(tmp_path, config, channels=16)
    with pytest.raises(ConfigError, match="is a SD3Transformer2DModel, not a FluxTransformer2D"):
        load_backbone(tmp_path, tiny_config("flux"))
    with pytest.raises(ConfigError, match="There is no unet of a pipeline at"):
        load_backbone(tmp_path, tiny_config("unet"))
    with pytest.raises(ConfigError, match="no encoder gives any"):
        build_backbone(config, TEXT_WIDTH, 0, 4, 0, factor=8)
    mistyped = config.backbone.model_copy(update={"kind": "pixar"})
    mistyped = config.model_copy(update={"backbone": mistyped})
    with pytest.raises(ConfigError, match="no backbone of kind 'pixar'; did you mean 'pixart'"):
        build_backbone(mistyped, 16, 12, 4, 0, factor=8)
    with pytest.raises(ConfigError, match="no argument 'num_layer'; did you mean 'num_layers'"):
        build_backbone(tiny_config("sd3", num_layer=3), 16, 12, 4, 0, factor=8)
    odd = config.model_copy(update={"resolution": 72})
    with pytest.raises(ConfigError, match="is no multiple of 2"):
        build_backbone(odd, 16, 12, 4, 0, factor=8)


def test_a_pickle_or_a_cut_file_is_no_weights(tmp_path: Path) -> None:
    backbone = tiny_backbone("sd3")
    folder = tmp_path / "transformer"
    backbone.inner.save_pretrained(folder, safe_serialization=False)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_backbone(tmp_path, tiny_config("sd3"))
    from safetensors.torch import load_file, save_file

    backbone.inner.save_pretrained(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["proj_out.bias"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks proj_out\.bias"):
        load_backbone(tmp_path, tiny_config("sd3"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_backbone(tmp_path, tiny_config("sd3"))


def test_a_pixart_of_before_its_class_is_one(tmp_path: Path) -> None:
    backbone = tiny_backbone("pixart-sized")
    folder = tmp_path / "transformer"
    backbone.inner.save_pretrained(folder)
    stored = json.loads((folder / "config.json").read_text())
    stored |= {"_class_name": "Transformer2DModel", "num_vector_embeds": None}
    stored["use_additional_conditions"] = None
    (folder / "config.json").write_text(json.dumps(stored))
    old = load_backbone(tmp_path, tiny_config("pixart"))
    assert old.pipeline == "PixArtAlphaPipeline"
    with torch.no_grad():
        assert torch.equal(old(*asked("pixart")), backbone(*asked("pixart")))
    with pytest.raises(ConfigError, match="at a sample_size of 128 alone"):
        build_backbone(tiny_config("pixart-sized", sample_size=64), 16, 0, 4, 0, factor=8)


def from_nothing(source: Path, kind: str, **config: object) -> DiffusersBackbone:
    """At 32 px of latents of factor 8 and 6 channels, a text of width 20."""
    own = {"source": str(source), "resolution": 32, "latents": {"kind": "autoencoder"}}
    described = ModelConfig.model_validate({**own, "backbone": {"kind": kind, "config": config}})
    return build_backbone(described, 20, 12, 6, 0, factor=8)


def test_from_nothing_takes_what_does_not_follow_from_the_source(tmp_path: Path) -> None:
    tiny_backbone("pixart").inner.save_pretrained(tmp_path / "transformer")
    built = from_nothing(tmp_path, "pixart", attention_head_dim=20).config
    assert built["num_layers"] == 2
    assert built["num_attention_heads"] == 2
    # The source's are 16, 32, 8 and 8: they do not hold here.
    followed = ("caption_channels", "cross_attention_dim", "sample_size", "out_channels")
    assert [built[name] for name in followed] == [20, 40, 4, 6]


def test_a_source_may_be_there_for_its_frozen_parts_alone(tmp_path: Path) -> None:
    tiny_backbone("sd3").inner.save_pretrained(tmp_path / "transformer")
    tiny = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1}
    assert from_nothing(tmp_path, "pixart", **tiny).pipeline == "PixArtSigmaPipeline"
    assert from_nothing(tmp_path, "flux", **tiny, num_single_layers=1).pipeline == "FluxPipeline"


@pytest.mark.parametrize("name", ["pixart", "unet", "sana", "sd3"])
def test_the_fast_attention_of_a_cpu_computes_the_same(name: str) -> None:
    backbone = tiny_backbone(name).double()
    x, time, text, sizes = asked(name)
    text = TextFeatures(text.sequence.double(), text.mask.double(), text.pooled.double())
    with torch.no_grad():
        fused = backbone(x.double(), time, text, sizes)
        use_fast_attention(backbone, CPU, 16)
        plain = backbone(x.double(), time, text, sizes)
    used = {type(p).__name__ for p in backbone.inner.attn_processors.values()}
    assert ("AttnProcessor" in used) == (name in ("pixart", "unet"))
    torch.testing.assert_close(plain, fused)
    use_fast_attention(backbone, CPU, 1024)
    assert "AttnProcessor" not in {
        type(p).__name__ for p in backbone.inner.attn_processors.values()
    }


@pytest.mark.parametrize("name", ["pixart", "unet", "sana"])
@torch.no_grad()
def test_what_is_made_of_the_text_alone_is_computed_once(name: str) -> None:
    backbone = tiny_backbone(name)
    x, time, text, sizes = asked(name)
    anew = [backbone(own, time, text, sizes) for own in (x, -x)]
    with backbone.reading_text_once():
        first = backbone(x, time, text, sizes)
        for layer, module in backbone.inner.named_modules():
            if layer.endswith(("attn2.to_v", "caption_projection")):
                for parameter in module.parameters():
                    parameter.mul_(3)  # nobody reads them again
        second = backbone(-x, time, text, sizes)
    assert all(map(torch.equal, (first, second), anew))
    assert not torch.equal(backbone(x, time, text, sizes), anew[0])


@pytest.mark.parametrize("name", TINY)
def test_padding_is_cut_where_the_network_hides_it_and_changes_nothing(name: str) -> None:
    backbone = tiny_backbone(name).double()
    x, time, text, sizes = asked(name)
    text.mask[:, 6:] = 0
    text = TextFeatures(text.sequence.double(), text.mask.double(), text.pooled.double())
    model = TextToImage(backbone, torch.nn.Module(), latents=None, objective=None)  # type: ignore[arg-type]
    cut = model.without_padding(text)
    if not backbone.row.masked:
        assert cut is text
        return
    assert cut.sequence.shape[1] == cut.mask.shape[1] == 6
    with torch.no_grad():
        whole, short = (model(x.double(), time, own, sizes) for own in (text, cut))
    torch.testing.assert_close(short, whole)


@pytest.mark.parametrize("name", TINY)
def test_bf16_weights_compute_about_the_same(name: str) -> None:
    backbone = tiny_backbone(name)
    x, time, text, sizes = asked(name)
    pooled = None if text.pooled is None else text.pooled.bfloat16()
    half = TextFeatures(text.sequence.bfloat16(), text.mask.bfloat16(), pooled)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(0.5)
        expected = backbone(x, time, text, sizes)
        output = backbone.to(torch.bfloat16)(x.bfloat16(), time, half, sizes)
    assert output.dtype == torch.bfloat16
    alike = torch.cosine_similarity(output.float().flatten(), expected.flatten(), dim=0)
    assert alike > 0.9


@pytest.mark.parametrize("name", TINY)
def test_blocks_computed_twice_give_the_same_gradients(name: str) -> None:
    backbone = tiny_backbone(name)

    def gradients() -> dict[str, torch.Tensor]:
        backbone.zero_grad()
        backbone(*asked(name)).square().mean().backward()
        return {n: p.grad.clone() for n, p in backbone.named_parameters() if p.grad is not None}

    calls = []
    linear = next(m for m in backbone.blocks()[1].modules() if isinstance(m, nn.Linear))
    linear.register_forward_hook(lambda *_: calls.append(1))
    usual = gradients()
    once = len(calls)
    use_activation_checkpointing(backbone)
    again = gradients()
    assert len(calls) == 3 * once
    assert usual.keys() == again.keys()
    for each in usual:
        torch.testing.assert_close(again[each], usual[each], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_blocks_are_the_repeated_ones_and_compile_in_place(name: str) -> None:
    backbone = tiny_backbone(name)
    blocks = backbone.blocks()
    counts = {"unet": 5, "unet-xl": 5, "flux": 4, "flux-told": 3, "flux2": 4, "z-image": 4}
    assert len(blocks) == counts.get(name, 2)
    names = set(backbone.state_dict())
    compile_blocks(backbone)
    assert set(backbone.state_dict()) == names
    assert all(block._compiled_call_impl is not None for block in blocks)


def test_flops_are_those_of_the_matrices_and_of_attention() -> None:
    backbone = world(0)
    width, layers, patches, words = 128, 4, 16, 26
    per_layer = (
        # Self-attention, the queries and output of cross-attention, feed-forward of 4 times.
        patches * (4 + 2 + 8) * width**2
        + words * 2 * width**2
        + 2 * patches * patches * width
        + 2 * patches * words * width
    )
    ends = patches * 2 * width * 8 * 8 * 3 + words * 2 * width**2
    time = 256 * width + width**2 + 6 * width**2
    expected = 3 * 2 * (layers * per_layer + ends + time)
    assert flops_per_picture(backbone, 32, 32, words) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_every_family_counts_its_flops(name: str) -> None:
    assert flops_per_picture(tiny_backbone(name), SIDE, SIDE, 7) > 0


def test_a_source_whose_configuration_is_cut_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"num_layers": ')
    config = model_config(load_train_settings(None, {"model": "tiny-test"}))
    cut = config.model_copy(update={"source": str(tmp_path)})
    with pytest.raises(DatasetError, match="is not readable as JSON"):
        build_backbone(cut, 32, 0, 3, 0)
