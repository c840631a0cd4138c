"""What a published model was trained to read is what its text encoders give here.

Each family: a random pipeline is saved, `build_text` reads its folder, and the features equal the
pipeline's own `encode_prompt`.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from curate.base.errors import ConfigError
from tests.train.text import tiny_pipelines as tiny
from tests.train.text.tiny_pipelines import PROMPTS
from train.model_settings import ModelConfig, TextConfig
from train.protocols import TextFeatures
from train.text import build_text

CLOSE = {"rtol": 0.0, "atol": 1e-5}


def features(pipeline: Any, folder: Path, *text: TextConfig) -> TextFeatures:
    pipeline.save_pretrained(folder)
    encoder = build_text(ModelConfig(source=str(folder), text=text))
    with torch.no_grad():
        found = encoder(encoder.tokenize(PROMPTS))
    assert found.sequence.shape == (len(PROMPTS), encoder.tokens, encoder.width)
    assert found.mask.shape == found.sequence.shape[:2]
    assert found.mask.dtype == found.sequence.dtype
    assert (0 if found.pooled is None else found.pooled.shape[1]) == encoder.pooled_width
    return found


def close(found: torch.Tensor | None, asked: torch.Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, asked, **CLOSE)


def stable_diffusion() -> Any:
    from diffusers import StableDiffusionPipeline

    tokenizer = tiny.clip_tokenizer()
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=tiny.clip_model(tokenizer, 16),
        tokenizer=tokenizer,
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def test_sd1_and_sd2_read_the_last_state_of_clip(tmp_path: Path) -> None:
    pipeline = stable_diffusion()
    with torch.no_grad():
        asked, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)
    found = features(pipeline, tmp_path, TextConfig(kind="clip"))
    close(found.sequence, asked)
    assert bool((found.mask == 1).all())
    assert found.pooled is None


def test_an_earlier_layer_behind_the_final_norm_is_clip_skip(tmp_path: Path) -> None:
    pipeline = stable_diffusion()
    clip = pipeline.text_encoder
    with torch.no_grad():
        # clip_skip of this diffusers asks CLIPTextModel for a `text_model`, which the one of
        # transformers 5 has not; these are its two lines.
        ids = pipeline.tokenizer(
            PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).input_ids
        asked = clip.final_layer_norm(clip(ids, output_hidden_states=True).hidden_states[-2])
    skipped = TextConfig(kind="clip", layer=-2, options={"final_norm": True})
    close(features(pipeline, tmp_path, skipped).sequence, asked)


def test_sdxl_reads_two_clips_side_by_side_and_the_second_ones_pooled_vector(
    tmp_path: Path,
) -> None:
    from diffusers import StableDiffusionXLPipeline

    first, second = tiny.clip_tokenizer(), tiny.clip_tokenizer(pad="!")
    pipeline = StableDiffusionXLPipeline(
        vae=None,
        text_encoder=tiny.clip_model(first, 16),
        text_encoder_2=tiny.clip_model(second, 24, projection=20, seed=1),
        tokenizer=first,
        tokenizer_2=second,
        unet=None,
        scheduler=None,
    )
    with torch.no_grad():
        asked, _, pooled, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    found = features(
        pipeline,
        tmp_path,
        TextConfig(kind="clip", layer=-2),
        TextConfig(kind="clip", name="text_encoder_2", layer=-2, pooled=True),
    )
    assert found.sequence.shape[-1] == 40
    close(found.sequence, asked)
    close(found.pooled, pooled)


def test_sd3_reads_two_clips_and_t5_behind_them(tmp_path: Path) -> None:
    from diffusers import StableDiffusion3Pipeline

    first, second, third = tiny.clip_tokenizer(), tiny.clip_tokenizer(pad="!"), tiny.t5_tokenizer()
    pipeline = StableDiffusion3Pipeline(
        transformer=None,
        scheduler=None,
        vae=None,
        text_encoder=tiny.clip_model(first, 16, projection=12),
        tokenizer=first,
        text_encoder_2=tiny.clip_model(second, 24, projection=20, seed=1),
        tokenizer_2=second,
        text_encoder_3=tiny.t5_model(third, 48),
        tokenizer_3=third,
    )
    with torch.no_grad():
        asked, _, pooled, _ = pipeline.encode_prompt(
            PROMPTS, PROMPTS, PROMPTS, do_classifier_free_guidance=False, max_sequence_length=40
        )
    found = features(
        pipeline,
        tmp_path,
        TextConfig(kind="clip", layer=-2, pooled=True),
        TextConfig(kind="clip", name="text_encoder_2", layer=-2, pooled=True),
        TextConfig(kind="t5", name="text_encoder_3", tokens=40),
    )
    close(found.sequence, asked)
    close(found.pooled, pooled)


def test_flux_reads_t5_and_clips_pooled_vector_alone(tmp_path: Path) -> None:
    from diffusers import FluxPipeline

    clip, t5 = tiny.clip_tokenizer(), tiny.t5_tokenizer()
    pipeline = FluxPipeline(
        scheduler=None,
        vae=None,
        text_encoder=tiny.clip_model(clip, 16),
        tokenizer=clip,
        text_encoder_2=tiny.t5_model(t5, 24),
        tokenizer_2=t5,
        transformer=None,
    )
    with torch.no_grad():
        asked, pooled, _ = pipeline.encode_prompt(PROMPTS, PROMPTS, max_sequence_length=50)
    found = features(
        pipeline,
        tmp_path,
        TextConfig(kind="clip", sequence=False, pooled=True),
        TextConfig(kind="t5", name="text_encoder_2", tokens=50),
    )
    close(found.sequence, asked)
    close(found.pooled, pooled)


def test_pixart_reads_t5_with_its_padding_hidden_and_in_lower_case(tmp_path: Path) -> None:
    from diffusers import PixArtSigmaPipeline

    tokenizer = tiny.t5_tokenizer()
    pipeline = PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny.t5_model(tokenizer, 24),
        vae=None,
        transformer=None,
        scheduler=None,
    )
    with torch.no_grad():
        asked, mask, _, _ = pipeline.encode_prompt(PROMPTS, False, max_sequence_length=30)
    found = features(
        pipeline, tmp_path, TextConfig(kind="t5", tokens=30, masked=True, lower_case=True)
    )
    close(found.sequence, asked)
    close(found.mask, mask.float())
    assert 0 < float(found.mask.mean()) < 1


INSTRUCTION = ["Given a prompt, write a better one:", "- be exact", "User Prompt: "]


def test_sana_reads_gemma_behind_an_instruction_and_no_caption_without_it(tmp_path: Path) -> None:
    from diffusers import SanaPipeline

    tokenizer = tiny.decoder_tokenizer(bos=True)
    pipeline = SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny.gemma_model(tokenizer),
        vae=None,
        transformer=None,
        scheduler=None,
    )
    with torch.no_grad():
        asked, mask, unasked, unasked_mask = pipeline.encode_prompt(
            PROMPTS,
            negative_prompt="",
            max_sequence_length=20,
            complex_human_instruction=INSTRUCTION,
        )
    found = features(
        pipeline,
        tmp_path,
        TextConfig(
            kind="decoder",
            tokens=20,
            masked=True,
            lower_case=True,
            template="\n".join(INSTRUCTION) + "{}",
            options={"prefix": "instruction"},
        ),
    )
    empty = PROMPTS.index("")
    asked[empty], mask[empty] = unasked[empty], unasked_mask[empty]
    close(found.sequence, asked)
    close(found.mask, mask.float())


def test_qwen_image_reads_qwen_vl_behind_a_dropped_prefix(tmp_path: Path) -> None:
    from diffusers import QwenImagePipeline

    tokenizer = tiny.decoder_tokenizer(bos=False)
    tokenizer.padding_side = "right"
    pipeline = QwenImagePipeline(
        scheduler=None,
        vae=None,
        text_encoder=tiny.qwen_vl_model(tokenizer),
        tokenizer=tokenizer,
        transformer=None,
    )
    template = pipeline.prompt_template_encode
    # 34 with Qwen's own vocabulary.
    pipeline.prompt_template_encode_start_idx = len(tokenizer(template.split("{}")[0])["input_ids"])
    pipeline.tokenizer_max_length = 60
    with torch.no_grad():
        asked, mask = pipeline.encode_prompt(PROMPTS)
    found = features(
        pipeline,
        tmp_path,
        TextConfig(
            kind="decoder", tokens=60, masked=True, template=template, options={"prefix": "drop"}
        ),
    )
    close(found.mask, mask.float())
    close(found.sequence[mask == 1], asked[mask == 1])


def test_z_image_reads_the_layer_before_the_last_of_qwen3(tmp_path: Path) -> None:
    from diffusers import ZImagePipeline

    tokenizer = tiny.decoder_tokenizer(bos=False)
    tokenizer.padding_side = "right"
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    pipeline = ZImagePipeline(
        scheduler=None,
        vae=None,
        text_encoder=tiny.qwen3_model(tokenizer),
        tokenizer=tokenizer,
        transformer=None,
    )
    with torch.no_grad():
        asked, _ = pipeline.encode_prompt(list(PROMPTS), "cpu", False, max_sequence_length=64)
    template = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    found = features(
        pipeline,
        tmp_path,
        TextConfig(kind="decoder", tokens=64, layer=-2, masked=True, template=template),
    )
    for sequence, mask, own in zip(found.sequence, found.mask, asked, strict=True):
        close(sequence[mask == 1], own)


@pytest.mark.parametrize("windows", [1, 3])
def test_windows_of_clip_are_read_apart_and_joined_along_tokens(
    windows: int, tmp_path: Path
) -> None:
    pipeline = stable_diffusion()
    pipeline.save_pretrained(tmp_path)
    text = TextConfig(kind="clip", windows=windows, pooled=True)
    encoder = build_text(ModelConfig(source=str(tmp_path), text=(text,)))
    first, second = "red ring " * 37 + "dog", "top " * 20
    texts = [f"{first} {second}", "a red ring"]
    with torch.no_grad():
        found = encoder(encoder.tokenize(texts))
        parts = [[first, second, ""], ["a red ring", "", ""]]
        asked = [pipeline.encode_prompt(own[:windows], "cpu", 1, False)[0] for own in parts]
        ids = pipeline.tokenizer([first, texts[1]], padding="max_length", return_tensors="pt")
        pooled = pipeline.text_encoder(ids.input_ids).pooler_output
    assert encoder.tokens == 77 * windows
    close(found.sequence, torch.stack([own.flatten(0, 1) for own in asked]))
    close(found.pooled, pooled)
    assert encoder.tokenizer.cut(texts).tolist() == [windows == 1, False]


def test_a_missing_part_is_one_sentence(tmp_path: Path) -> None:
    stable_diffusion().save_pretrained(tmp_path)

    def config(**changes: Any) -> ModelConfig:
        return ModelConfig(source=str(tmp_path), text=(TextConfig(kind="clip", **changes),))

    with pytest.raises(ConfigError, match=r"There is no text_encoder_2 in .*"):
        build_text(config(name="text_encoder_2"))
    with pytest.raises(ConfigError, match="reads 77 tokens at a time, not 80"):
        build_text(config(tokens=80))
    # Pickled weights are not read.
    weights = tmp_path / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ConfigError, match=r"text_encoder of .* cannot be loaded"):
        build_text(config())
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(ConfigError, match=r"is no pipeline: it has no model_index\.json"):
        build_text(config())
