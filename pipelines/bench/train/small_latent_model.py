"""Make a small pipeline of latents from folders of photographs, to train on where no hub is.

    python -m pipelines.bench.train.small_latent_model OUT --pairs FOLDER [--pairs FOLDER ...]

Each folder holds `captions.jsonl`, one JSON object a picture with `image` (path below the folder)
and `alt`. An AutoencoderKL of 0.4 M parameters is trained on the pictures from nothing;
beside it stand a word tokenizer over the texts and a small T5, both of train/text, and a PixArt
transformer, all in diffusers' layout, which a preset names as its `source:`. T5 and transformer
are as they start: they are to be trained. Some minutes on two cores; the autoencoder of an OUT that
is there already is trained further.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.base.errors import ConfigError
from curate.base.progress import progress
from curate.base.settings import dtype_of, precision_of

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

SIDE = 64
"""Of the pictures that it is measured on and made for, pixels."""
CROP = 32
"""Side of a draw in training: many small steps go further than few large ones."""
ROOM = 80
"""Side of the pictures that are kept in memory; a draw is cut from somewhere within."""
BATCH = 8
HELD_OUT = 0.05
LEARNING_RATE = 2e-3
KL_WEIGHT = 1e-4
"""On nats a latent, beside the mean absolute error of pixels in -1..1."""


def read_pairs(
    folders: Sequence[Path], side: int = ROOM
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[str]]:
    """Pictures (n, side, side, 3), which of them are held out (n,), and all texts.

    What does not decode is left out; held out are those whose name's hash is low.

    Raises:
        ConfigError: a folder has no captions.jsonl, or no picture decodes.
    """
    from curate.pictures.decode import PictureView, decode_batches

    pairs = []
    for folder in folders:
        path = folder / "captions.jsonl"
        if not path.is_file():
            raise ConfigError(f"{folder} has no captions.jsonl.")
        lines = path.read_text("utf-8").splitlines()
        pairs += [(folder, json.loads(line)) for line in lines if line]
    samples = ((str(pair["image"]), (own / pair["image"]).read_bytes()) for own, pair in pairs)
    pictures, names = [], []
    for batch in decode_batches(samples, PictureView(side), 64, threads=2):
        pictures.append(batch.picture[batch.decoded])
        names += [key for key, good in zip(batch.keys, batch.decoded, strict=True) if good]
    if not names:
        raise ConfigError(f"No picture of {', '.join(map(str, folders))} decodes.")
    low = [hashlib.sha256(name.encode()).digest()[0] < 256 * HELD_OUT for name in names]
    texts = [text for _, pair in pairs if (text := pair.get("alt"))]
    return np.concatenate(pictures), np.array(low), texts


def small_autoencoder(seed: int) -> AutoencoderKL:
    """Four pixels a latent of four channels, 0.4 M parameters, from nothing."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    # Few channels at full size, where nearly all the time goes.
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        latent_channels=4,
        # Groups of two channels would normalise a picture's own colour away.
        norm_num_groups=2,
        layers_per_block=1,
        mid_block_add_attention=False,
        sample_size=SIDE,
    )


def train_autoencoder(
    model: AutoencoderKL, pictures: NDArray[np.uint8], seconds: float, seed: int
) -> int:
    """Train in place on random crops, half of them mirrored; the number of steps.

    The loss is the mean absolute error and a little KL. The learning rate rises over a twentieth of
    the time and falls to 0 over the rest, so that whatever the machine gives is used to the end.
    """
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    dtype = dtype_of(precision_of("auto", "cpu", matrix_tiles=True))
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    steps, begun = 0, time.perf_counter()
    with progress(round(seconds), "training", "s") as bar:
        while (past := time.perf_counter() - begun) < seconds:
            share = past / seconds
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min(share / 0.05, (1 - share) / 0.95)
            x = _in_range(_crops(pictures, random))
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                posterior = model.encode(x).latent_dist
                restored = model.decode(posterior.sample()).sample
            error = (restored.float() - x).abs().mean()
            nats = posterior.kl().float().mean() / posterior.mean[0].numel()
            optimizer.zero_grad()
            (error + KL_WEIGHT * nats).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            steps += 1
            bar.update(round(past) - bar.n)
            bar.set_postfix_str(f"error {error.item():.3f}, {nats.item():.2f} nats", refresh=False)
    return steps


@torch.no_grad()
def measure(
    model: AutoencoderKL, training: NDArray[np.uint8], held_out: NDArray[np.uint8]
) -> tuple[float, NDArray[np.uint8]]:
    """Set the scaling factor, 1 over the latents' standard deviation, from 512 pictures.

    Returns:
        Mean PSNR of held-out pictures in dB, and what these became (n, SIDE, SIDE, 3).
    """
    model.eval()
    latents = [
        model.encode(_in_range(part)).latent_dist.mode()
        for part in _parts(training[:: 1 + len(training) // 512])
    ]
    model.register_to_config(scaling_factor=1 / float(torch.cat(latents).std()))
    restored, psnr = [], []
    for part in _parts(held_out):
        output = model.decode(model.encode(_in_range(part)).latent_dist.mode()).sample
        levels = ((output.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        square = (levels.astype(np.float64) - part).reshape(len(part), -1) ** 2
        psnr += (10 * np.log10(255**2 / np.maximum(square.mean(1), 1e-9))).tolist()
        restored.append(levels)
    return float(np.mean(psnr)), np.concatenate(restored)


def write_pipeline(
    vae: AutoencoderKL, texts: Iterable[str], out: Path, words: int, seed: int
) -> None:
    """Write OUT as a PixArtSigmaPipeline, with preset photo-64's text encoder of so many words."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline

    from train.backbones import build_backbone
    from train.settings import TrainSettings, model_config
    from train.text.words import words_model, words_tokenizer

    config = model_config(TrainSettings(model="photo-64"))
    own = config.text[0].model_copy(
        update={"options": {**config.text[0].options, "vocabulary_size": words}}
    )
    backbone = config.backbone.model_copy(
        update={"config": {**config.backbone.config, "patch_size": 2}}
    )
    tokenizer = words_tokenizer(own, texts)
    encoder = words_model(own, len(tokenizer), seed)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    transformer = build_backbone(
        config.model_copy(update={"backbone": backbone}),
        encoder.config.d_model,
        0,
        vae.config.latent_channels,
        seed,
        factor,
    )
    PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoder,
        vae=vae,
        transformer=transformer.inner,
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True
        ),
    ).save_pretrained(out, safe_serialization=True)


def _crops(pictures: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    room = pictures.shape[1] - CROP
    rows = random.integers(len(pictures), size=BATCH)
    corners = random.integers(room + 1, size=(BATCH, 2))
    cut = np.stack(
        [
            pictures[row, y : y + CROP, x : x + CROP]
            for row, (y, x) in zip(rows, corners, strict=True)
        ]
    )
    mirrored = random.random(BATCH) < 0.5
    cut[mirrored] = cut[mirrored, :, ::-1]
    return cut


def _parts(pictures: NDArray[np.uint8]) -> Iterable[NDArray[np.uint8]]:
    """The middles, some at a time."""
    edge = (pictures.shape[1] - SIDE) // 2
    middle = pictures[:, edge : edge + SIDE, edge : edge + SIDE]
    return (middle[start : start + 64] for start in range(0, len(middle), 64))


def _in_range(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, 3, H, W) float32 in -1..1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--pairs", "folders", type=click.Path(path_type=Path, exists=True), multiple=True, required=True
)
@click.option("--minutes", default=5.0, show_default=True, help="Of the autoencoder's training.")
@click.option("--words", default=6144, show_default=True, help="Most words of the tokenizer.")
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(
    out: Path, folders: tuple[Path, ...], minutes: float, words: int, seed: int, threads: int
) -> None:
    """Train an autoencoder on the pictures of --pairs and write a pipeline's folder OUT."""
    from train.validation import write_grid

    torch.set_num_threads(threads)
    pictures, low, texts = read_pairs(folders)
    if low.all() or not low.any():
        raise ConfigError(f"{len(pictures)} pictures are too few to hold some out.")
    vae = small_autoencoder(seed)
    if (out / "vae").exists():
        vae = vae.from_pretrained(out, subfolder="vae").train()
    steps = train_autoencoder(vae, pictures[~low], 60 * minutes, seed)
    psnr, restored = measure(vae, pictures[~low], pictures[low])
    write_pipeline(vae, texts, out, words, seed)
    count = min(18, len(restored))
    shown = np.concatenate([*_parts(pictures[low])])[:count]
    pairs = np.stack([shown, restored[:count]], 1).reshape(-1, SIDE, SIDE, 3)
    write_grid(out / "reconstruction.png", pairs)
    size = sum(parameter.numel() for parameter in vae.parameters())
    click.echo(
        f"autoencoder of {size:,} parameters, {steps} steps of {BATCH} of "
        f"{(~low).sum():,} pictures: PSNR {psnr:.2f} dB on {low.sum()} held-out ones, "
        f"scaling_factor {vae.config.scaling_factor:.4f}\n"
        f"pipeline: {out}; original and reconstruction in turn: {out / 'reconstruction.png'}"
    )


if __name__ == "__main__":
    main()
