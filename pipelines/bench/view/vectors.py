"""Vectors that are spread as CLIP's are, and questions to them; isotropic noise would flatter.

What makes real ones hard to code and to sort into lists, and stands here too:

- They lie in a cone: two random pictures have a cosine of about 0.5.
- Their variance decays: the i-th principal axis has a share of 1 / i, so that nine tenths lie in
  half of the axes. The axes are turned against the numbers' own.
- They cluster by subject, 10,000 of them below 200 themes, some of them frequent and most rare.
- A text lies in another cone, has half of its picture's content and as much of its own: cosines of
  0.32 with its own picture. So its nearest pictures are far away, in many clusters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from curate.duplicates.candidates.vectors import Floats

_THEMES, _SUBJECTS = 200, 10_000
# Of the variance about the mean: themes, subjects within them, pictures within those.
_SHARES = (0.35, 0.30, 0.35)
_RARE = 0.7
"""A subject's frequency is its rank to the power of minus this."""


class MadeVectors:
    """Pictures and texts of one made model. Deterministic in width and seed.

    Args:
        width: D.
    """

    def __init__(self, width: int, seed: int = 0) -> None:
        random = np.random.default_rng([seed, width])
        self.width, self.seed = width, seed
        variance = 1 / np.arange(1, width + 1)
        turn = np.linalg.qr(random.normal(size=(width, width)))[0]
        self._axes = (np.sqrt(variance / variance.sum())[:, None] * turn).astype(np.float32)
        cones = np.linalg.qr(random.normal(size=(width, 2)))[0].T.astype(np.float32)
        self._picture_cone, self._text_cone = cones
        themes, subjects = self._noise(random, _THEMES), self._noise(random, _SUBJECTS)
        theme, subject, _ = np.sqrt(_SHARES, dtype=np.float32)
        of = random.integers(0, _THEMES, _SUBJECTS)
        self._subjects = theme * themes[of] + subject * subjects
        frequency = np.arange(1, _SUBJECTS + 1) ** -_RARE
        self._frequency = frequency / frequency.sum()

    def pictures(self, count: int, first: int) -> NDArray[np.float16]:
        """(count, D) unit vectors of the rows from `first` on."""
        content = self._content(np.random.default_rng([self.seed, 1, first]), count)
        return _unit(self._picture_cone + content)

    def questions(self, count: int) -> tuple[Floats, Floats]:
        """(count, D) pictures that are not stored, and as many texts of them."""
        random = np.random.default_rng([self.seed, 2])
        content = self._content(random, count)
        texts = 1.2 * self._text_cone + 0.1 * self._picture_cone
        texts = texts + 0.6 * content + 0.6 * self._noise(random, count)
        pictures = _unit(self._picture_cone + content)
        return pictures.astype(np.float32), _unit(texts).astype(np.float32)

    def _content(self, random: np.random.Generator, count: int) -> Floats:
        chosen = random.choice(_SUBJECTS, count, p=self._frequency)
        own = np.sqrt(_SHARES[2], dtype=np.float32)
        content: Floats = self._subjects[chosen] + own * self._noise(random, count)
        return content

    def _noise(self, random: np.random.Generator, count: int) -> Floats:
        noise: Floats = random.standard_normal((count, self.width), np.float32) @ self._axes
        return noise


def _unit(vectors: Floats) -> NDArray[np.float16]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
