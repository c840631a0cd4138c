"""Trains the world's contrastive model and its two heads.

Beside the usual contrast within a batch (Radford et al. 2021), three things make so small a model a
usable filter: for every picture a caption with one thing wrong as a negative (after NegCLIP,
Yuksekgonul et al. 2023), texts that tell of no picture as negatives for all, and two auxiliary
heads on the image embedding, because contrast alone has no reason to keep blur, noise or a sticker.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from curate.base.settings import dtype_of, precision_of
from pipelines.make_weights.examples import INPUT_SIDE, Pictures, corrupted
from pipelines.world.facts import contradicts, facts
from pipelines.world.scene import Scene, WorldConfig
from pipelines.world.tokens import CLIP_CONTEXT, clip_tokenizer
from pipelines.world.writers import write_alt, write_descriptive, write_short
from train.data.index import Bucket
from train.data.order import DataOrder
from train.optimizer import Optimizer, learning_rate_scale
from train.sample import from_uint8
from train.settings import TrainSettings

EMBED_DIM = 128

_QUALITY = {"blur": "blurry", "noise": "noisy", "low_contrast": "faded", "": "sharp clean"}


@dataclass(frozen=True)
class ClipTraining:
    """Length and weights of the contrastive training."""

    steps: int = 650
    batch: int = 128
    muon_rate: float = 0.005
    adam_rate: float = 1.5e-3
    quality_weight: float = 0.5
    weak_texts: int = 32


def clip_config() -> dict[str, Any]:
    """The open_clip model configuration, in the hub's layout; see `weights`."""
    model = {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "image_size": INPUT_SIDE,
            "layers": 4,
            "width": 160,
            "head_width": 32,
            "mlp_ratio": 3.0,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": CLIP_CONTEXT,
            "vocab_size": len(clip_tokenizer()),
            "hf_tokenizer_name": "the folder of this file",
            "tokenizer_kwargs": {"clean": "whitespace"},
            "width": 128,
            "heads": 4,
            "layers": 2,
            "mlp_ratio": 3.0,
        },
    }
    preprocess = {
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def train_clip(
    scenes: Sequence[Scene],
    pictures: Pictures,
    config: WorldConfig,
    seed: int,
    training: ClipTraining | None = None,
) -> nn.Module:
    """An `open_clip.CLIP` in float32, trained on pictures (N, 64, 64, 3) of N scenes."""
    import open_clip

    plan = training or ClipTraining()
    torch.manual_seed(seed)
    settings = clip_config()["model_cfg"]
    settings["text_cfg"].pop("tokenizer_kwargs")
    model = open_clip.model.CLIP(**settings)
    heads = nn.Linear(EMBED_DIM, 2)
    both = nn.ModuleDict({"clip": model, "heads": heads})
    stepping = TrainSettings(
        steps=plan.steps,
        muon_learning_rate=plan.muon_rate,
        adamw_learning_rate=plan.adam_rate,
        adamw_betas=(0.9, 0.98),
        weight_decay=0.0,
        gradient_clip=1.0,
        warmup_steps=plan.steps // 20,
        cooldown_share=0.7,
    )
    optimizer = Optimizer(dict(both.named_parameters()), stepping, _is_hidden_matrix)
    dtype = training_dtype()
    both.to(dtype)
    texts = _Texts(scenes, pictures, config, seed)
    target = torch.stack(
        [
            torch.from_numpy((pictures.aesthetic - 4.75) / 2.25),
            torch.from_numpy(pictures.unsafe.astype(np.float32)),
        ],
        1,
    )
    order = DataOrder([Bucket(INPUT_SIDE, INPUT_SIDE, 0, len(scenes))], plan.batch, seed)
    rng = np.random.default_rng([seed, 30])
    model.train()
    for step in range(plan.steps):
        rows, _ = order.batch(step)
        tokens = texts.draw(rows, rng, plan.weak_texts)
        image = model.encode_image(from_uint8(torch.from_numpy(pictures.pixels[rows])).to(dtype))
        text = F.normalize(model.encode_text(tokens).float(), dim=-1)
        image = F.normalize(image.float(), dim=-1)
        scale = model.logit_scale.float().exp().clamp(max=100)
        logits = scale * image @ text.T
        label = torch.arange(len(rows))
        contrast = F.cross_entropy(logits, label)
        contrast = (contrast + F.cross_entropy(logits[:, : len(rows)].T, label)) / 2
        score, mark = heads((image * EMBED_DIM**0.5).to(dtype)).float().T
        quality = F.mse_loss(score, target[rows, 0])
        quality = quality + F.binary_cross_entropy_with_logits(mark, target[rows, 1])
        both.zero_grad(set_to_none=True)
        (contrast + plan.quality_weight * quality).backward()  # type: ignore[no-untyped-call]
        optimizer.step(step, learning_rate_scale(step, stepping))
        if step % 100 == 0 or step == plan.steps - 1:
            print(f"clip step {step}: contrast {contrast:.3f} quality {quality:.3f}", flush=True)
    both.float()
    optimizer.write_back()  # the weights before they were rounded
    return model.eval()


def training_dtype() -> torch.dtype:
    """What the nets compute in: bfloat16 where the CPU has AMX tiles, about 2.4 times as fast."""
    return dtype_of(precision_of("auto", "cpu", matrix_tiles=True))


def _is_hidden_matrix(name: str, weight: Tensor) -> bool:
    ends = ("embedding", "heads", "projection", "visual.proj")
    return weight.ndim == 2 and not any(word in name for word in ends)


def save_clip(model: nn.Module, directory: Path) -> None:
    """Write configuration, fp16 weights and tokenizer in the layout that open_clip reads."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    save_file(state, directory / "open_clip_model.safetensors", {"format": "pt"})
    config = json.dumps(clip_config(), indent=2)
    (directory / "open_clip_config.json").write_text(config + "\n")
    clip_tokenizer().save_pretrained(directory)


class _Texts:
    """All texts of the training scenes as tokens: right ones of three kinds, and wrong ones."""

    def __init__(
        self, scenes: Sequence[Scene], pictures: Pictures, config: WorldConfig, seed: int
    ) -> None:
        wrong = corrupted(scenes, config, seed)
        quality = [
            _quality_words(str(s), bool(u))
            for s, u in zip(pictures.spoiler, pictures.unsafe, strict=True)
        ]
        said = np.random.default_rng([seed, 31]).random(len(scenes)) < 0.25
        right_tokens, wrong_tokens, usable = [], [], []
        for write in _WRITERS:
            right, false = write(scenes, seed), write(wrong, seed)
            usable.append([contradicts(facts(t), s) for t, s in zip(false, scenes, strict=True)])
            right = [
                f"{words} {text}" if tell else text
                for text, words, tell in zip(right, quality, said, strict=True)
            ]
            right_tokens.append(_tokens(right))
            wrong_tokens.append(_tokens(false))
        self.right, self.wrong = torch.stack(right_tokens), torch.stack(wrong_tokens)
        self.usable = np.array(usable)
        weak = write_alt(scenes[:2000], seed, {"boilerplate": 0.45, "filename": 0.45, "empty": 0.1})
        self.weak = _tokens([alt.text for alt in weak])

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator, weak: int) -> Tensor:
        """Tokens of B right texts in order, then of wrong and weak ones: (2B + weak, context)."""
        kind = rng.choice(4, len(rows), p=(0.2, 0.2, 0.2, 0.4))
        wrong = self.wrong[kind, rows]
        spare = self.weak[rng.integers(0, len(self.weak), len(rows) + weak)]
        unusable = torch.from_numpy(~self.usable[kind, rows])
        wrong[unusable] = spare[: len(rows)][unusable]
        return torch.cat([self.right[kind, rows], wrong, spare[len(rows) :]])


# (scenes, seed) -> one text a scene.
_WRITERS: tuple[Callable[[Sequence[Scene], int], list[str]], ...] = (
    write_descriptive,
    lambda scenes, seed: write_descriptive(scenes, seed + 1000),
    write_short,
    lambda scenes, seed: [
        alt.text for alt in write_alt(scenes, seed, {"good": 0.75, "partial": 0.25})
    ],
)


def _quality_words(spoiler: str, unsafe: bool) -> str:
    return _QUALITY[spoiler] + (" unsafe sticker" if unsafe else "")


def _tokens(texts: list[str]) -> Tensor:
    tokenizer = clip_tokenizer()
    encoded = tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=CLIP_CONTEXT,
        return_tensors="pt",
    )
    return torch.as_tensor(encoded.input_ids)
