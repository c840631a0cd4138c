"""negCLIPLoss and NormSim of unit vectors (Wang et al., "CLIPLoss and Norm-Based Data Selection
Methods for Multimodal Contrastive Learning", 2024, arXiv 2405.19547).

A picture v_i and a text l_i that fit many others have a high similarity for no merit of the pair:
"a photo" is near every picture. With the temperature t of the model, batches B_1 to B_K that hold
i, and s_ij = <v_i, l_j>,

    negCLIPLoss(i) = s_ii - mean over k of
        t / 2 * (log sum_j exp(s_ij / t) + log sum_j exp(s_ji / t)),   j in B_k

which is the model's own contrastive loss of the pair, negated and times t. It is at most 0, where
nothing else in the batch is like the pair.

NormSim tells how near a picture is to those of a target set T:

    NormSim_p(i) = (sum over x in T of |<x, v_i>|^p)^(1/p),   p = 2 and p = infinity
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Vectors = NDArray[np.float32]

_PRODUCTS = 1 << 24
"""Similarities at most that are held at a time: 64 MiB."""


def normalisation(
    image: Vectors,
    text: Vectors,
    others: tuple[Vectors, Vectors],
    own: NDArray[np.int64],
    temperature: float,
    device: str = "cpu",
) -> NDArray[np.float64]:
    """What a batch takes off the similarity of each of N pairs: (N,).

    Cost: 4 N B D operations. Memory: the batch, and 64 MiB for similarities.

    Args:
        image, text: (N, D) unit vectors of the pairs.
        others: the same of the batch, (B, D) each.
        own: (N,) the place in the batch at which the pair itself stands, whatever stood there.
    """
    import torch

    other_image, other_text = (torch.from_numpy(part).to(device) for part in others)
    step = max(1, _PRODUCTS // len(other_image))
    parts = [np.zeros(0)]
    for start in range(0, len(image), step):
        rows = slice(start, start + step)
        v, t = (torch.from_numpy(part[rows]).to(device) for part in (image, text))
        place = torch.from_numpy(own[rows]).to(device)[:, None]
        mine = (v * t).sum(1, keepdim=True)
        both = [
            (_dot(one, all_).scatter_(1, place, mine) / temperature).logsumexp(1)
            for one, all_ in ((v, other_text), (t, other_image))
        ]
        parts.append(((both[0].double() + both[1].double()) * temperature / 2).cpu().numpy())
    return np.concatenate(parts)


class NormSim:
    """Likeness of pictures to a target set, for p = 2 and p = infinity.

    Cost a picture: R D operations for infinity, D^2 for 2. Memory: 4 R D bytes (3 GB for a million
    targets of 768 numbers).
    """

    def __init__(self, targets: Vectors, device: str = "cpu") -> None:
        """`targets`: (R, D) unit vectors."""
        import torch

        self._targets = torch.from_numpy(targets).to(device)
        # sum of <x, v>^2 = v' (sum of x x') v, whatever R is.
        self._moments = _dot(self._targets.T, self._targets.T).double()

    @property
    def width(self) -> int:
        """D."""
        return int(self._targets.shape[1])

    def __call__(self, image: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, D) unit vectors -> NormSim_2, 0 to sqrt(R), and NormSim_infinity, 0 to 1; (N,)."""
        import torch

        pictures = torch.from_numpy(image).to(self._targets.device)
        exact = pictures.double()
        two = ((exact @ self._moments) * exact).sum(1).clamp_min(0).sqrt()
        largest = torch.zeros(len(pictures), device=pictures.device)
        step = max(1, _PRODUCTS // max(1, len(pictures)))
        for start in range(0, len(self._targets), step):
            near = _dot(pictures, self._targets[start : start + step]).abs().amax(1)
            largest = torch.maximum(largest, near)
        return two.cpu().numpy(), largest.double().cpu().numpy()


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Similarities of the rows of a and of b."""
    return a @ b.T
