"""The peer of `caplab bench train`: a loop as diffusers' train_text_to_image.py is written.

Same network, text encoder, objective and AdamW as ours; everything around them as the scripts of
diffusers 0.42 do it: pictures decoded from files every epoch in the training process
(`dataloader_num_workers` is 0 there), torchvision's transforms, captions tokenised to the window,
noise and timesteps drawn in the loop, accelerate's `backward` and `clip_grad_norm_`, the loss
gathered and read with `.item()` in every step, EMAModel after it, a progress bar that shows it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from train.model import TextToImage
from train.settings import TrainSettings


class ImageFolder(Dataset[dict[str, Any]]):
    """Picture files and their captions, transformed as the scripts do."""

    def __init__(self, files: Sequence[Path], captions: Sequence[str], resolution: int) -> None:
        from torchvision import transforms

        self.files, self.captions = list(files), list(captions)
        self.transform = transforms.Compose(
            [
                transforms.Resize(resolution, transforms.InterpolationMode.BILINEAR),
                transforms.CenterCrop(resolution),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        from PIL import Image

        with Image.open(self.files[index]) as picture:
            pixels = self.transform(picture.convert("RGB"))
        return {"pixel_values": pixels, "caption": self.captions[index]}


def train_as_diffusers(
    model: TextToImage, data: ImageFolder, settings: TrainSettings, steps: int, warm_up: int
) -> float:
    """Pictures a second of `steps` steps, of which the first `warm_up` are not counted."""
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel

    # Precision is the state's, which outlives an Accelerator; the next run may have another.
    AcceleratorState._reset_state(reset_partial_state=True)
    on_gpu = settings.device.startswith("cuda")
    accelerator = Accelerator(
        mixed_precision="bf16" if settings.precision == "bf16" else "no", cpu=not on_gpu
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    ema = EMAModel(trained, decay=settings.ema_decay)
    optimizer = torch.optim.AdamW(
        trained, lr=settings.adamw_learning_rate, betas=settings.adamw_betas
    )
    loader = DataLoader(data, settings.batch_size, shuffle=True, drop_last=True)
    scheduler = get_scheduler("constant", optimizer)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    ema.to(accelerator.device)
    inner = accelerator.unwrap_model(model)

    def batches() -> Any:
        while True:
            yield from loader

    begun = 0.0
    bar = tqdm(total=steps, disable=True)
    for step, batch in zip(range(steps), batches(), strict=False):
        if step == warm_up:
            begun = time.perf_counter()
        with accelerator.accumulate(model):
            x0 = _latents(inner, batch["pixel_values"])
            tokens = inner.text.tokenize(batch["caption"])
            tokens = {name: ids.to(x0.device) for name, ids in tokens.items()}
            noise = torch.randn_like(x0)
            normal = torch.randn(len(x0), device=x0.device)
            uniform = torch.rand((2, len(x0)), device=x0.device)
            times = inner.objective.times(normal, uniform)
            x_t = inner.objective.noised(x0, noise, times)
            output = model(
                inner.objective.model_input(x_t, times), inner.objective.model_time(times), tokens
            )
            loss = inner.objective.loss(output.float(), x0, noise, x_t, times).mean()
            gathered = accelerator.gather(loss.repeat(settings.batch_size)).mean()
            train_loss = gathered.item()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(trained, settings.gradient_clip)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        ema.step(trained)
        bar.update()
        bar.set_postfix(step_loss=loss.detach().item(), loss=train_loss)
    # Nothing is pending on the device: the loss of every step was read.
    return (steps - warm_up) * settings.batch_size / (time.perf_counter() - begun)


@torch.no_grad()
def _latents(model: TextToImage, pictures: Tensor) -> Tensor:
    return model.latents.encode(pictures)
