"""What the reference implementations give on seeded features, for the peers' own Python.

    python peer_distances.py OUT.json

in an environment of pipelines/bench/requirements/distances.txt. Features are made here from a seed,
so that only the numbers need to be kept; tests/pipelines/judges/peer_distances.json is this
program's output, and the tests hold our functions to it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Features = NDArray[np.float64]


def seeded_features(rows: int = 300, width: int = 64) -> tuple[Features, Features]:
    """Generated and real features, (rows, width) float64: correlated, of unlike mean and spread."""
    rng = np.random.default_rng(7)
    mixing = rng.standard_normal((width, width)) / np.sqrt(width)
    generated = 0.9 * rng.standard_normal((rows, width)) @ mixing + 0.1
    return generated, rng.standard_normal((rows, width)) @ mixing


def seeded_inception() -> dict[str, torch.Tensor]:
    """Random weights for FID's Inception under whose norms the signal neither dies nor grows."""
    from torchvision.models.inception import Inception3

    with torch.device("meta"):
        shapes = Inception3(1008, aux_logits=False, init_weights=False).state_dict()
    generator, state = torch.Generator().manual_seed(0), {}
    for name, like in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith(("running_var", "bn.weight")):
            state[name] = torch.rand(like.shape, generator=generator) + 0.5
        else:
            scale = like[0].numel() ** -0.5 if like.dim() > 1 else 1.0
            state[name] = torch.randn(like.shape, generator=generator) * scale
    return state


def inception_features() -> list[float]:
    """The first features of torch-fidelity's Inception with these weights, of a seeded picture."""
    from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-not-found]
        FeatureExtractorInceptionV3,
    )

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "weights.pth")
        torch.save(seeded_inception(), path)
        model = FeatureExtractorInceptionV3("i", ["2048"], feature_extractor_weights_path=path)
    picture = torch.from_numpy(seeded_picture()).permute(2, 0, 1)[None]
    return [float(value) for value in model(picture)[0][0, :24]]


def seeded_picture(side: int = 299) -> NDArray[np.uint8]:
    """(side, side, 3) of noise; of the network's own side, so that nobody resizes it."""
    return np.random.default_rng(7).integers(0, 256, (side, side, 3), np.uint8)


def peers() -> dict[str, float]:
    """Metric/package -> its value."""
    from cleanfid import fid  # type: ignore[import-not-found]
    from prdc import compute_prdc  # type: ignore[import-not-found]
    from torch_fidelity import metric_fid, metric_kid, metric_prc  # type: ignore[import-not-found]
    from vendi_score import vendi  # type: ignore[import-not-found]

    generated, real = seeded_features()
    one, other = torch.from_numpy(generated), torch.from_numpy(real)
    statistics = [metric_fid.fid_features_to_statistics(part) for part in (one, other)]
    frechet = metric_fid.fid_statistics_to_metric(*statistics, False)
    options = {"kid_subset_size": 200, "verbose": False, "save_cpu_ram": False}
    kid = metric_kid.kid_features_to_metric(one, other, **options)
    near = metric_prc.prc_features_to_metric(one, other, **options)
    prdc = compute_prdc(real, generated, 3)
    np.random.seed(0)
    return {
        "fid/torch-fidelity": frechet["frechet_inception_distance"],
        "fid/clean-fid": float(fid.fid_from_feats(generated, real)),
        "kid_mean/torch-fidelity": kid["kernel_inception_distance_mean"],
        "kid_std/torch-fidelity": kid["kernel_inception_distance_std"],
        # Its subsets are the whole set here, so nothing is drawn.
        "kid_all/clean-fid": float(fid.kernel_distance(generated, real, num_subsets=1)),
        "precision/torch-fidelity": near["precision"],
        "recall/torch-fidelity": near["recall"],
        **{f"{name}/prdc": float(value) for name, value in prdc.items()},
        "vendi/vendi-score": float(vendi.score_dual(generated)),
    }


def clean_resized() -> list[float]:
    """The first pixels of a small picture as clean-fid resizes it."""
    from cleanfid.resize import build_resizer  # type: ignore[import-not-found]

    return [float(value) for value in build_resizer("clean")(seeded_picture(64))[0, :24, 0]]


if __name__ == "__main__":
    packages = ("torch-fidelity", "clean-fid", "prdc", "vendi-score")
    found: dict[str, Any] = {
        "versions": {name: version(name) for name in packages},
        "values": peers(),
    }
    found["inception"] = inception_features()
    found["clean_resize"] = clean_resized()
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + "\n")
