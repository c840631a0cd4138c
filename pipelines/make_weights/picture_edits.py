"""Random edits for training: what happens to pictures on the web, and somewhat more of it.

The edits of `caplab bench duplicates` are drawn by other code, at the pictures' full size, with
fonts and encoders; here everything happens at 128 px, several thousand times a second.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.pictures.copy_descriptor import SIDE

SOURCE = 160
"""Side in pixels of the squashed pictures that are edited."""
_WORK = 128
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
Picture = NDArray[np.uint8]


def edited(picture: Picture, logos: NDArray[np.uint8], rng: np.random.Generator) -> Picture:
    """One random edit of a (160, 160, 3) uint8 picture: (64, 64, 3) uint8.

    logos: (N, 160, 160, 3) uint8, pictures to paste small ones of.
    """
    border = int(rng.choice([cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE]))
    fill = tuple(int(level) for level in np.repeat(rng.choice([0, 255, 128]), 3))
    work = cv2.warpAffine(
        picture, _placement(rng), (_WORK, _WORK), flags=cv2.INTER_LINEAR, borderMode=border,
        borderValue=fill,
    )  # fmt: skip
    if rng.random() < 0.35:
        work = _labelled(work, rng)
    if rng.random() < 0.25:
        work = _with_logo(work, logos[rng.integers(len(logos))], rng)
    small = cv2.resize(work, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return _relit(small, rng)


def _placement(rng: np.random.Generator) -> NDArray[np.float64]:
    """Affine map of the source to the work picture: crop anywhere, mirror, rotate a little."""
    scale, shift = np.ones(2), np.zeros(2)
    if rng.random() < 0.8:
        lost = rng.uniform(0, 0.24, 2) if rng.random() < 0.6 else np.repeat(rng.uniform(0, 0.24), 2)
        scale = 1 - lost
        place = rng.choice([0, 0.5, 1], 2) if rng.random() < 0.5 else rng.uniform(0, 1, 2)
        shift = lost * place
    if rng.random() < 0.06:  # or the other way: a frame around it
        scale = np.repeat(1 + rng.uniform(0, 0.12), 2)
        shift = (1 - scale) / 2
    to_source = np.diag([*(scale * SOURCE / _WORK), 1.0])
    to_source[:2, 2] = shift * SOURCE
    if rng.random() < 0.45:
        angle, aspect = np.deg2rad(rng.uniform(-6, 6)), np.exp(rng.uniform(-0.4, 0.4))
        turn = np.eye(3)
        turn[:2, :2] = [
            [np.cos(angle), -np.sin(angle) * aspect],
            [np.sin(angle) / aspect, np.cos(angle)],
        ]
        centre = np.eye(3)
        centre[:2, 2] = SOURCE / 2
        to_source = centre @ turn @ np.linalg.inv(centre) @ to_source
    if rng.random() < 0.3:
        to_source = to_source @ np.array([[-1.0, 0, _WORK], [0, 1, 0], [0, 0, 1]])
    return np.asarray(np.linalg.inv(to_source)[:2])


def _labelled(work: Picture, rng: np.random.Generator) -> Picture:
    """A line of text, half the time on a bar."""
    marked = work.copy()
    height = int(rng.integers(8, 20))
    top = int(rng.choice([rng.integers(0, 6), _WORK - height - rng.integers(0, 6),
                          rng.integers(0, _WORK - height)]))  # fmt: skip
    left = int(rng.integers(0, 50))
    right = _WORK if rng.random() < 0.4 else int(rng.integers(left + 30, _WORK + 1))
    colour = tuple(int(level) for level in rng.integers(0, 256, 3))
    if rng.random() < 0.5:
        cv2.rectangle(marked, (left, top), (right, top + height), colour, -1)
        colour = tuple(255 - level for level in colour)
    letters = "".join(rng.choice(list("abcdefgh ijklmno PRSTU 0123"), int(rng.integers(6, 24))))
    cv2.putText(
        marked, letters, (left + 2, top + height - 3), int(rng.choice([0, 2, 3, 4])),
        height / 32, colour, 1, cv2.LINE_AA,
    )  # fmt: skip
    share = rng.uniform(0.5, 1.0)
    return cv2.addWeighted(marked, share, work, 1 - share, 0)


def _with_logo(work: Picture, logo: Picture, rng: np.random.Generator) -> Picture:
    """A small picture, mostly in a corner."""
    width, height = (int(_WORK * share) for share in rng.uniform(0.08, 0.25, 2))
    space = np.array([_WORK - width, _WORK - height])
    place = rng.choice([0.02, 0.98], 2) if rng.random() < 0.7 else rng.uniform(0, 1, 2)
    left, top = (space * place).astype(int)
    marked = work.copy()
    marked[top : top + height, left : left + width] = cv2.resize(
        logo, (width, height), interpolation=cv2.INTER_AREA
    )
    return marked


def _relit(small: NDArray[np.floating], rng: np.random.Generator) -> Picture:
    """Light, contrast, gamma, colour, blur, noise and coarse resampling."""
    if rng.random() < 0.15:
        small = np.repeat((small @ _LUMA)[..., None], 3, axis=2)
    elif rng.random() < 0.4:
        grey = (small @ _LUMA)[..., None]
        small = grey + (small - grey) * rng.uniform(0.4, 1.6)
        small = small * rng.uniform(0.9, 1.1, 3).astype(np.float32)
    if rng.random() < 0.6:
        mean = small.mean()
        small = (small - mean) * rng.uniform(0.6, 1.5) + mean * rng.uniform(0.6, 1.5)
    if rng.random() < 0.3:
        small = 255 * (np.clip(small, 0, 255) / 255) ** rng.uniform(0.6, 1.6)
    small = np.clip(small, 0, 255)
    if rng.random() < 0.3:
        small = cv2.GaussianBlur(small, (0, 0), rng.uniform(0.4, 1.5))
    if rng.random() < 0.15:
        side = int(rng.integers(24, SIDE))
        small = cv2.resize(cv2.resize(small, (side, side)), (SIDE, SIDE))
    if rng.random() < 0.3:
        small = small + rng.standard_normal(small.shape, np.float32) * rng.uniform(1, 8)
    return np.clip(small + 0.5, 0, 255).astype(np.uint8)
