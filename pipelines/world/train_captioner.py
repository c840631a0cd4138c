"""Trains the world's captioner: a small LLaVA, from nothing, on short and descriptive captions.

The classes are transformers' own (a CLIP vision tower, a two-layer projector, a Llama), so that the
result loads by `AutoModelForImageTextToText` and `AutoProcessor` like any published model. The
vision tower's last hidden states are used without its class token (LLaVA's "default" selection).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pipelines.world.examples import Pictures
from pipelines.world.optimize import Trainer, epochs, hidden_matrices
from pipelines.world.palette import BACKGROUND_STYLES
from pipelines.world.scene import Scene
from pipelines.world.tokens import (
    BEGIN,
    CHAT_TEMPLATE,
    DESCRIPTIVE,
    IMAGE,
    SHORT,
    captioner_tokenizer,
)
from pipelines.world.train_clip import pixels_to_input
from pipelines.world.writers import habitual_descriptive, habitual_short

CAPTIONER_SIDE, PATCH = 32, 8
IMAGE_TOKENS = (CAPTIONER_SIDE // PATCH) ** 2
MAX_LENGTH = 72
WIDTH = 128
STYLE_WEIGHT = 0.1
MIN_LEGIBLE = 4.5  # aesthetic score: spoilt by half at most


@dataclass(frozen=True)
class CaptionerTraining:
    """Length and rates of the captioner's training."""

    steps: int = 1000
    batch: int = 64
    muon_rate: float = 0.015
    adam_rate: float = 3e-3
    short_every: int = 5
    """Every so many steps a batch of short captions, the others are descriptive."""


def new_captioner() -> Any:
    """A randomly initialised `LlavaForConditionalGeneration` of about 1.1 M parameters."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    tokenizer = captioner_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=CAPTIONER_SIDE,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # The fused attention's backward is pathologically slow on CPUs in bfloat16.
        attn_implementation="eager",
    )
    return LlavaForConditionalGeneration(config)


def train_captioner(
    scenes: Sequence[Scene],
    pictures: Pictures,
    seed: int,
    training: CaptionerTraining | None = None,
) -> Any:
    """A LLaVA in float32, trained on those of N pictures (N, H, W, 3) whose scene is legible."""
    plan = training or CaptionerTraining()
    # A sticker or a heavy blur hides what the caption tells: nothing to learn there but guessing.
    legible = np.flatnonzero(~pictures.unsafe & (pictures.aesthetic >= MIN_LEGIBLE))
    scenes = [scenes[i] for i in legible.tolist()]
    torch.manual_seed(seed)
    model = new_captioner()
    # Stripes and gradients are faint beside the objects, and one token a caption hardly finds them:
    # an auxiliary head, dropped afterwards, reads the background's style off the image tokens.
    style_head = nn.Linear(IMAGE_TOKENS * WIDTH, len(BACKGROUND_STYLES))
    seen: list[Tensor] = []
    hook = model.model.multi_modal_projector.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output)
    )
    style = torch.tensor([BACKGROUND_STYLES.index(s.style) for s in scenes])
    both = nn.ModuleDict({"captioner": model, "style_head": style_head})
    # Muon takes the patch embedding too: three times fewer steps to the same loss.
    patches = [n for n, p in both.named_parameters() if p.ndim == 4]
    matrices = [*hidden_matrices(both, ("embed", "lm_head", "style_head")), *patches]
    trainer = Trainer(both, matrices, plan.steps, plan.muon_rate, plan.adam_rate)
    kinds = {
        SHORT: _sequences(habitual_short(scenes), SHORT),
        DESCRIPTIVE: _sequences(habitual_descriptive(scenes), DESCRIPTIVE),
    }
    batches = epochs(len(scenes), plan.batch, torch.Generator().manual_seed(seed))
    prompt = IMAGE_TOKENS + 2  # begin, image tokens, mode token
    small = shrunk(pictures.pixels[legible])
    model.train()
    for step, rows in zip(range(plan.steps), batches, strict=False):
        kind = SHORT if step % plan.short_every == 0 else DESCRIPTIVE
        sequences = kinds[kind][rows]
        sequences = sequences[:, : int((sequences >= 0).sum(1).max())]
        ids = sequences.clamp(min=0)
        pixels = pixels_to_input(small[rows]).to(trainer.dtype)
        logits = model(input_ids=ids[:, :-1], pixel_values=pixels, use_cache=False).logits
        wanted = sequences[:, prompt:]
        loss = F.cross_entropy(
            logits[:, prompt - 1 :].float().flatten(0, 1), wanted.flatten(), ignore_index=-1
        )
        features = seen.pop().reshape(len(rows), -1)
        told = F.cross_entropy(style_head(features).float(), style[rows])
        trainer.step(loss + STYLE_WEIGHT * told)
        if step % 100 == 1 or step == plan.steps - 1:
            print(f"captioner step {step}: loss {loss:.4f}", flush=True)
    trainer.finish()
    hook.remove()
    return model.eval()


def shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 pictures (N, H, W, 3) at the captioner's side, resized as its processor does."""
    side = (CAPTIONER_SIDE, CAPTIONER_SIDE)
    resized = [Image.fromarray(p).resize(side, Image.Resampling.BICUBIC) for p in pixels]
    return np.stack([np.asarray(picture) for picture in resized])


def save_captioner(model: Any, directory: Path) -> None:
    """Write model (fp16), processor, chat template and generation settings."""
    from transformers import CLIPImageProcessor, GenerationConfig, LlavaProcessor

    tokenizer = captioner_tokenizer()
    pictures = CLIPImageProcessor(
        size={"height": CAPTIONER_SIDE, "width": CAPTIONER_SIDE},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor = LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which "default" drops again
        chat_template=CHAT_TEMPLATE,
    )
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=48,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.half().save_pretrained(directory)
    model.float()
    processor.save_pretrained(directory)
    # Stored in half, computed in float32: CPUs are many times slower in float16, and loaders that
    # are not told a precision take the configuration's.
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n")


def _sequences(captions: list[str], mode: str) -> Tensor:
    """Whole sequences, -1 behind the end: begin, image tokens, mode, caption, end. (N, length)."""
    tokenizer = captioner_tokenizer()
    prompt = f"{BEGIN}{IMAGE * IMAGE_TOKENS}{mode}"
    encoded = tokenizer([prompt + c + tokenizer.eos_token for c in captions]).input_ids
    rows = [torch.tensor(ids) for ids in encoded]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)
