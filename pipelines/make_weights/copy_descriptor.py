"""Train the copy descriptor from nothing: edits of one picture together, all else apart.

    python -m pipelines.make_weights.copy_descriptor FOLDER [FOLDER ...] --out FILE.safetensors

Trains on the photographs of the folders that are not held out (make_weights.photographs) and on
drawn scenes of the synthetic world, so that flat graphics are known too. About 18 CPU minutes.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from curate.pictures.copy_descriptor import LAYERS, make_network, net_input
from curate.pictures.decode import to_rgb
from pipelines.make_weights.photographs import is_held_out, photograph_files
from pipelines.make_weights.picture_edits import SOURCE, edited
from pipelines.world.render import render
from pipelines.world.scene import WorldConfig, sample_scenes

PAIRS = 256
"""Pairs of edits a step."""
TEMPERATURE = 0.05
SPREAD = 0.5
"""Weight of the term that spreads descriptors (KoLeo: Sablayrolles et al., 2019)."""
SCENES = 300
PEAK_RATE = 3e-3
_MADE = "python -m pipelines.make_weights.copy_descriptor FOLDERS --seed {seed} --steps {steps}"


def squashed(files: list[Path]) -> NDArray[np.uint8]:
    """(N, 160, 160, 3) uint8."""
    out = np.empty((len(files), SOURCE, SOURCE, 3), np.uint8)
    for row, file in enumerate(files):
        with Image.open(file) as opened:
            opened.draft("RGB", (2 * SOURCE, 2 * SOURCE))
            small = to_rgb(opened).resize((SOURCE, SOURCE), Image.Resampling.BOX)
            out[row] = np.asarray(small)
    return out


def contrastive_loss(first: Tensor, second: Tensor) -> Tensor:
    """InfoNCE over all 2 B descriptors, and the KoLeo term: (B, D) each, of length 1."""
    both = torch.cat([first, second])
    count = len(first)
    cosine = both @ both.T
    own = torch.eye(2 * count, dtype=torch.bool)
    target = torch.arange(2 * count).roll(count)
    infonce = nn.functional.cross_entropy(
        (cosine / TEMPERATURE).masked_fill(own, -torch.inf), target
    )
    # Distance to the nearest descriptor of another picture, to be as large as can be.
    partner = torch.zeros_like(own)
    partner[torch.arange(2 * count), target] = True
    nearest = cosine.masked_fill(own | partner, -1).max(dim=1).values
    spread = -torch.log((2 - 2 * nearest).clamp_min(1e-4)).mean() / 2
    return infonce + SPREAD * spread


def folded(network: nn.Module) -> dict[str, Tensor]:
    """The trained weights with batch normalisation multiplied into the convolutions, float16."""
    state = network.state_dict()
    out = {name: state[name] for name in ("out.weight", "out.bias")}
    for layer in range(len(LAYERS)):
        norm = {
            part: state[f"norms.{layer}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        gain = norm["weight"] / (norm["running_var"] + 1e-5).sqrt()
        out[f"convolutions.{layer}.weight"] = (
            state[f"convolutions.{layer}.weight"] * gain[:, None, None, None]
        )
        out[f"convolutions.{layer}.bias"] = norm["bias"] - norm["running_mean"] * gain
    return {name: tensor.half().contiguous() for name, tensor in out.items()}


def train(sources: NDArray[np.uint8], seed: int, steps: int, threads: int = 1) -> nn.Module:
    """A trained net; the same arguments on one machine give the same weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 21])
    network = make_network(normalised=True).to(memory_format=torch.channels_last)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_RATE,
    )
    rates = torch.optim.lr_scheduler.OneCycleLR(adam, PEAK_RATE, steps, pct_start=0.1)
    order: list[int] = []
    started = time.process_time()
    for step in range(1, steps + 1):
        if len(order) < PAIRS:
            order = rng.permutation(len(sources)).tolist()
        rows, order = order[:PAIRS], order[PAIRS:]
        views = [
            net_input(np.stack([edited(sources[row], sources, rng) for row in rows]))
            for _ in range(2)
        ]
        x = torch.cat(views).contiguous(memory_format=torch.channels_last)
        found = nn.functional.normalize(network(x), dim=1)
        loss = contrastive_loss(found[: len(rows)], found[len(rows) :])
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        rates.step()
        if step % 20 == 0 or step == steps:
            used = time.process_time() - started
            click.echo(f"step {step}: loss {loss.item():.3f}, {used:.0f} CPU seconds")
    return network.eval()


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The weights file.")
@click.option("--seed", default=0, show_default=True)
@click.option("--steps", default=750, show_default=True, help="Batches of 256 pairs.")
@click.option("--threads", default=1, show_default=True, help="CPU threads.")
@click.option("--provenance", default="", help="Where the photographs come from, for the record.")
def main(
    folders: tuple[Path, ...], out: Path, seed: int, steps: int, threads: int, provenance: str
) -> None:
    """Train on the photographs below FOLDERS that are not held out."""
    from safetensors.torch import save_file

    files = [path for path in photograph_files(list(folders)) if not is_held_out(path)]
    world = WorldConfig.small()
    scenes = render(sample_scenes(world, SCENES, seed), world, SOURCE)
    network = train(np.concatenate([squashed(files), scenes]), seed, steps, threads)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(folded(network), out)
    record = {
        "command": _MADE.format(seed=seed, steps=steps),
        "photographs": len(files),
        "scenes": SCENES,
        "provenance": provenance,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "bytes": out.stat().st_size,
    }
    out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    click.echo(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
