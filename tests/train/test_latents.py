"""Latents are those that diffusers' pipelines make of a picture, and go back the same way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from curate.base.errors import ConfigError
from train.latents import build_latents
from train.model_settings import LatentsConfig, ModelConfig

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
SIDE = 32


def pictures() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(2, 3, SIDE, SIDE) * 2 - 1


def stored(folder: Path, model: Any, precision: str = "fp32") -> ModelConfig:
    """A config whose source is a pipeline of this autoencoder alone."""
    from curate.base.files import write_json

    model.save_pretrained(folder / "vae")
    write_json(folder / "model_index.json", {"vae": ["diffusers", type(model).__name__]})
    latents = LatentsConfig(kind="autoencoder", precision=precision)
    return ModelConfig(source=str(folder), latents=latents)


def autoencoder_kl(**options: Any) -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
    }
    return AutoencoderKL(**blocks, latent_channels=4, norm_num_groups=4, **options).eval()


def test_pixels_are_the_pictures() -> None:
    latents = build_latents(ModelConfig())
    x = pictures()
    assert (latents.channels, latents.factor, latents.parts()) == (3, 1, {})
    assert torch.equal(latents.decode(latents.encode(x)), x)


def test_latents_of_flux_are_shifted_and_scaled_as_its_pipeline_does(tmp_path: Path) -> None:
    from diffusers import FluxKontextPipeline

    model = autoencoder_kl(shift_factor=0.1159, scaling_factor=0.3611)
    latents = build_latents(stored(tmp_path, model))
    pipeline = FluxKontextPipeline(None, model, None, None, None, None, None)
    x = pictures()
    with torch.no_grad():
        asked = pipeline._encode_vae_image(x, torch.Generator())
        back = model.decode(asked / 0.3611 + 0.1159).sample
    found = latents.encode(x)
    assert (latents.channels, latents.factor) == (4, 2)
    assert found.shape == (2, 4, SIDE // 2, SIDE // 2)
    torch.testing.assert_close(found, asked, **CLOSE)
    torch.testing.assert_close(latents.decode(found), back, **CLOSE)
    assert list(latents.parts()) == ["vae"]


def test_latents_of_stable_diffusion_are_scaled_and_no_shift_is_none(tmp_path: Path) -> None:
    from diffusers.image_processor import VaeImageProcessor

    model = autoencoder_kl()
    latents = build_latents(stored(tmp_path, model))
    seen = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    processor = VaeImageProcessor(vae_scale_factor=2)
    x = processor.preprocess(seen.astype(np.float32) / 255)
    with torch.no_grad():
        asked = model.encode(x).latent_dist.mode() * 0.18215
        shown = processor.postprocess(model.decode(asked / 0.18215).sample, output_type="np")
    ours = torch.from_numpy(seen).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(latents.encode(ours), asked, **CLOSE)
    back = (latents.decode(asked) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(back.numpy(), shown, atol=1e-5)


def test_latents_with_a_mean_and_deviation_of_each_channel_are_as_sdxl_decodes_them(
    tmp_path: Path,
) -> None:
    mean, deviation = [0.1, -0.2, 0.3, 0.0], [1.0, 2.0, 0.5, 1.5]
    model = autoencoder_kl(latents_mean=mean, latents_std=deviation, scaling_factor=0.5)
    latents = build_latents(stored(tmp_path, model))
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    wide = torch.tensor(mean).view(1, 4, 1, 1), torch.tensor(deviation).view(1, 4, 1, 1)
    with torch.no_grad():
        # StableDiffusionXLPipeline.__call__
        asked = model.decode(z * wide[1] / model.config.scaling_factor + wide[0]).sample
    torch.testing.assert_close(latents.decode(z), asked, **CLOSE)
    x = pictures()
    with torch.no_grad():
        raw = model.encode(x).latent_dist.mode()
    torch.testing.assert_close(latents.encode(x), (raw - wide[0]) * 0.5 / wide[1], **CLOSE)


def test_latents_of_sana_are_those_of_its_deep_autoencoder(tmp_path: Path) -> None:
    from diffusers import AutoencoderDC

    torch.manual_seed(0)
    model = AutoencoderDC(
        latent_channels=8,
        attention_head_dim=8,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8, 16),
        decoder_block_out_channels=(8, 8, 16),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
        scaling_factor=0.41407,
    ).eval()
    latents = build_latents(stored(tmp_path, model))
    x = pictures()
    with torch.no_grad():
        asked = model.encode(x).latent * 0.41407
        back = model.decode(asked / 0.41407).sample
    found = latents.encode(x)
    assert found.shape == (2, latents.channels, SIDE // latents.factor, SIDE // latents.factor)
    torch.testing.assert_close(found, asked, **CLOSE)
    torch.testing.assert_close(latents.decode(found), back, **CLOSE)


def test_a_tiny_autoencoder_does_not_round_its_latents(tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    counts = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    model = AutoencoderTiny(**blocks, **counts).eval()
    latents = build_latents(stored(tmp_path, model))
    x = pictures()
    found = latents.encode(x)
    assert found.shape == (2, 4, SIDE // latents.factor, SIDE // latents.factor)
    with torch.no_grad():
        back = model.decode(model.encode(x).latents).sample
        rounded = model(x).sample
    torch.testing.assert_close(latents.decode(found), back, **CLOSE)
    assert not torch.allclose(back, rounded, atol=1e-5)


def test_latents_of_flux2_are_patched_and_normalised_as_its_pipeline_does(tmp_path: Path) -> None:
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline

    torch.manual_seed(0)
    model = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
    ).eval()
    model.bn.running_mean.normal_()
    model.bn.running_var.uniform_(0.5, 2)
    latents = build_latents(stored(tmp_path, model))
    pipeline = Flux2KleinPipeline(None, model, None, None, None)
    x = pictures()
    with torch.no_grad():
        asked = pipeline._encode_vae_image(x, None)
        deviation = (model.bn.running_var + model.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
        z = asked * deviation + model.bn.running_mean.view(1, -1, 1, 1)
        back = model.decode(pipeline._unpatchify_latents(z)).sample
    found = latents.encode(x)
    assert (latents.channels, latents.factor) == (16, 4)
    torch.testing.assert_close(found, asked, **CLOSE)
    torch.testing.assert_close(latents.decode(found), back, **CLOSE)


def test_latents_of_qwen_image_are_films_of_one_frame(tmp_path: Path) -> None:
    from diffusers import AutoencoderKLQwenImage, QwenImageEditPipeline

    torch.manual_seed(0)
    model = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.0, 2.0, 0.5, 1.5],
    ).eval()
    latents = build_latents(stored(tmp_path, model))
    pipeline = QwenImageEditPipeline(None, model, None, None, None, None)
    x = pictures()
    with torch.no_grad():
        asked = pipeline._encode_vae_image(x[:, :, None], torch.Generator())[:, :, 0]
        mean = torch.tensor(model.config.latents_mean).view(1, -1, 1, 1)
        deviation = torch.tensor(model.config.latents_std).view(1, -1, 1, 1)
        back = model.decode((asked * deviation + mean)[:, :, None]).sample[:, :, 0]
    found = latents.encode(x)
    assert found.shape == (2, 4, SIDE // latents.factor, SIDE // latents.factor)
    torch.testing.assert_close(found, asked, **CLOSE)
    torch.testing.assert_close(latents.decode(found), back, **CLOSE)


def test_precision_is_the_autoencoders_and_latents_stay_float32(tmp_path: Path) -> None:
    model = autoencoder_kl()
    exact = build_latents(stored(tmp_path, model))
    rough = build_latents(stored(tmp_path, model, "bf16"))
    x = pictures()
    found = rough.encode(x)
    assert rough.parts()["vae"].dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert rough.decode(found).dtype == torch.float32
    torch.testing.assert_close(found, exact.encode(x), rtol=0.1, atol=0.02)
    assert rough.identity() != exact.identity()


def test_identity_hangs_on_the_weights_and_the_scaling(tmp_path: Path) -> None:
    model = autoencoder_kl()
    first = build_latents(stored(tmp_path / "a", model)).identity()
    assert build_latents(stored(tmp_path / "b", model)).identity() == first
    model.register_to_config(scaling_factor=0.5)
    assert build_latents(stored(tmp_path / "c", model)).identity() != first
    model = autoencoder_kl()
    with torch.no_grad():
        model.decoder.conv_in.bias.add_(1)
    assert build_latents(stored(tmp_path / "d", model)).identity() != first


def test_a_missing_or_unfit_autoencoder_is_one_sentence(tmp_path: Path) -> None:
    from diffusers import VQModel

    config = ModelConfig(latents=LatentsConfig(kind="autoencoder"))
    with pytest.raises(ConfigError, match="the model needs a source"):
        build_latents(config)
    other = stored(tmp_path, VQModel(block_out_channels=(8,), norm_num_groups=4))
    with pytest.raises(ConfigError, match="VQModel is no autoencoder of pictures"):
        build_latents(other)
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"vae of .* cannot be loaded"):
        build_latents(other)
