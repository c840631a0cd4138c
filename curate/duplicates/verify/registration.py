"""How one small picture lies in another: registration of candidate pairs.

A copy shows its original through a pose: an affine map of the plane (crop, rescaling, a small turn)
with a change of light (gain and offset, clipped to 0..255 as a brightened photograph is). Both are
estimated here on the luma of two thumbnails; whether what lies under the pose is the same picture
is decided in curate.duplicates.verify.agreement.

1. Sixteen points a side: of some twenty crops in either direction the three that fit best are
   refined, scale and shift of each axis, by Gauss-Newton steps (Lucas and Kanade, 1981; the inverse
   compositional form of Baker and Matthews, 2004, so that slopes are computed once). The best of
   them and of no crop at all goes on. A pair that fits nowhere ends here.
2. Thirty-two and sixty-four points: all six numbers of the affine map.

Fits are robust (residuals far above the rest lose their weight, so labels and logos do not pull),
and where one picture is clipped to white or black and the model goes beyond, nothing is held
against it. Array operations over blocks of pairs, but for the resampling, which is OpenCV's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

STEPS = (7, 6, 5)
"""Gauss-Newton steps at 16, 32 and 64 points a side."""
KEPT_STARTS = 3
MISFIT_LIMIT = 0.6
"""Misfit at 16 points above which a pair is given up; strangers lie around one half and above."""
MAX_SCALE, MAX_SHEAR, MAX_SHIFT = 1.35, 0.16, 0.3
"""Largest relative scale, turn or shear, and shift (in half sides) of a pose."""
GAIN = (0.55, 1.8)
"""Range of the change of contrast."""
RIM_WEIGHT = 0.2
"""Weight of the outer eighth of a picture in every fit."""
_CLIPPED_WEIGHT = 0.02
_DAMPING = 2e-3
_LOW, _HIGH = 5, 250
"""Levels from which on a pixel counts as clipped."""


@dataclass(frozen=True)
class Poses:
    """Registered pairs: `pose` (P, 2, 3) maps the second's plane into the first's; see `inside`.

    Coordinates run from -1 to 1 over a picture. `misfit` (P,) in 0..1 at 16 points, of scales and
    shifts alone; `fit` the same at 64 points of the final pose, 1 where a pair was given up. `way`
    (P,): which of the ways to see the first fits best.
    """

    pose: Floats
    misfit: Floats
    fit: Floats
    way: NDArray[np.int64]


def register(ways: Sequence[Floats], second: Floats) -> Poses:
    """Poses of P pairs: luma (P, 64, 64), 0 to 255, of each way to see the first and of the second.

    The way is settled at 16 points: a mirror image costs no more than that.
    """
    if not len(second):
        none = np.zeros(0, np.float32)
        return Poses(np.tile(_STARTS[:1], (0, 1, 1)), none, none, np.zeros(0, np.int64))
    scales = _scales(second)
    seen = [_scales(way) for way in ways]
    coarse = [_coarse(one[2], scales[2]) for one in seen]
    misfits = np.stack([found for _, found in coarse])
    way = misfits.argmin(axis=0)
    every = np.arange(len(second))
    pose, misfit_ = np.stack([found for found, _ in coarse])[way, every], misfits[way, every]
    fit = np.ones(len(second), np.float32)
    going = np.flatnonzero(misfit_ <= MISFIT_LIMIT)
    if len(going):
        chosen = way[going]
        fine, half = (
            (np.stack([one[scale] for one in seen])[chosen, going], scales[scale][going])
            for scale in (0, 1)
        )
        known = pose[going]
        still = np.tile(_STARTS[:1], (len(going), 1, 1))
        known, _ = _best(*half, [_refined(*half, known, STEPS[1], 6), known, still])
        pose[going], fit[going] = _best(*fine, [_refined(*fine, known, STEPS[2], 6), known])
    return Poses(pose, misfit_, fit, way)


def _scales(luma: Floats) -> tuple[Floats, Floats, Floats]:
    """Smoothed, at 64, 32 and 16 points a side."""
    fine = smooth(luma)
    half = smooth(_halved(fine))
    return fine, half, smooth(_halved(half))


def _coarse(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Best pose of scales and shifts, and its misfit, from several starts."""
    pairs = len(a)
    costs = np.stack([misfit(a, b, np.tile(start, (pairs, 1, 1))) for start in _STARTS])
    order = np.argsort(costs, axis=0, kind="stable")[:KEPT_STARTS]
    order[-1] = np.where((order == 0).any(axis=0), order[-1], 0)  # no crop is always tried
    tried = [_refined(a, b, _STARTS[starts], STEPS[0], 4) for starts in order]
    tried.append(np.tile(_STARTS[0], (pairs, 1, 1)))
    costs = np.stack([misfit(a, b, pose) for pose in tried])
    return np.stack(tried)[costs.argmin(axis=0), np.arange(pairs)], costs.min(axis=0)


def _best(a: Floats, b: Floats, poses: list[Floats]) -> tuple[Floats, Floats]:
    """The pose of each pair that fits best, and its misfit."""
    costs = np.stack([misfit(a, b, pose) for pose in poses])
    return np.stack(poses)[costs.argmin(axis=0), np.arange(len(a))], costs.min(axis=0)


def misfit(a: Floats, b: Floats, pose: Floats) -> Floats:
    """(P,) 0 where `a` under the pose looks like `b`, 1 where nothing does.

    Each pixel counts r^2 / (r^2 + v / 10), v being the picture's variance: a few pixels that are
    far off count no more than as many that are off.
    """
    warped, mask = warp(a, pose), inside(pose, a.shape[1])
    _, residual = relit(warped, b, mask, rounds=2)
    mask = mask * _window(b.shape[1])
    count = np.maximum(mask.sum(axis=(1, 2)), 1)
    mean = (b * mask).sum(axis=(1, 2)) / count
    spread = (((b - mean[:, None, None]) ** 2) * mask).sum(axis=(1, 2)) / count
    power = residual**2
    share = power / (power + 0.1 * np.maximum(spread, 9)[:, None, None])
    return np.asarray((share * mask).sum(axis=(1, 2)) / count)


def relit(
    warped: Floats, b: Floats, mask: Floats, rounds: int
) -> tuple[Floats, NDArray[np.float32]]:
    """`warped` in the light of `b`, clipped to 0..255, and the residual; see the module.

    The fit is repeated `rounds` times; each time pixels that are far off, and those that clipping
    explains, lose their weight.
    """
    mask = mask * _window(b.shape[1])
    clipped = np.flatnonzero(_clipped(warped) | _clipped(b))
    weight = mask.copy()
    weight.ravel()[clipped] *= _CLIPPED_WEIGHT
    for left in reversed(range(rounds)):
        gain, offset = _light(warped, b, weight)
        model = np.clip(gain * warped + offset, 0, 255)
        if left:
            weight = _robust(model - b, _told(mask, warped, b, model, clipped))
    return model, model - b


def _light(warped: Floats, b: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Gain and offset, (P, 1, 1) each, by weighted least squares."""
    both = (1, 2)
    count = np.maximum(weight.sum(axis=both, keepdims=True), 1e-3)
    mean_w = (warped * weight).sum(axis=both, keepdims=True) / count
    mean_b = (b * weight).sum(axis=both, keepdims=True) / count
    around = (warped - mean_w) * weight
    product = (around * (b - mean_b)).sum(axis=both, keepdims=True)
    power = (around * (warped - mean_w)).sum(axis=both, keepdims=True)
    gain = np.clip(product / np.maximum(power, count), *GAIN)
    return gain, mean_b - gain * mean_w


def _clipped(picture: Floats) -> NDArray[np.bool_]:
    return (picture > _HIGH) | (picture < _LOW)


def _told(
    mask: Floats, warped: Floats, b: Floats, model: Floats, clipped: NDArray[np.int64]
) -> Floats:
    """The mask, with little left where clipping explains whatever difference there is.

    `clipped`: flat places of the pixels at which either picture is clipped; the rest say all.
    """
    warped, b, model = (each.ravel()[clipped] for each in (warped, b, model))
    explained = (
        ((b > _HIGH) & (model > _HIGH))
        | ((b < _LOW) & (model < _LOW))
        | ((warped > _HIGH) & (b >= model))
        | ((warped < _LOW) & (b <= model))
    )
    weight = mask.copy()
    weight.ravel()[clipped[explained]] *= _CLIPPED_WEIGHT
    return weight


def _robust(residual: Floats, base: Floats) -> Floats:
    """Weights that fall where a residual is far above the pair's own level (Geman and McClure)."""
    both = (1, 2)
    count = np.maximum(base.sum(axis=both, keepdims=True), 1)
    scale = np.sqrt((residual**2 * base).sum(axis=both, keepdims=True) / count)
    return np.asarray(base / (1 + (residual / (1.2 * np.maximum(scale, 3))) ** 2) ** 2)


def _refined(a: Floats, b: Floats, pose: Floats, steps: int, free: int) -> Floats:
    """`pose` after Gauss-Newton steps in 4 numbers (scales and shifts) or all 6."""
    pairs, side = b.shape[:2]
    at = _axis(side)
    slope_y, slope_x = np.gradient(b, axis=(1, 2))
    basis = [at[None, None, :], at[None, :, None], np.ones((1, 1, 1), np.float32)]
    columns = [slope * factor for slope in (slope_x, slope_y) for factor in basis]
    chosen = [0, 1, 2, 3, 4, 5] if free == 6 else [0, 2, 4, 5]
    jacobian = np.stack([columns[i] for i in chosen], axis=1).reshape(pairs, free, -1) * (side / 2)
    for _ in range(steps):
        warped, mask = warp(a, pose), inside(pose, side)
        model, residual = relit(warped, b, mask, rounds=1)
        clipped = np.flatnonzero(_clipped(warped) | _clipped(b))
        base = _told(mask * _window(side), warped, b, model, clipped)
        weight = _robust(residual, base).reshape(pairs, 1, -1)
        weighted = jacobian * weight
        normal = weighted @ jacobian.transpose(0, 2, 1)
        target = weighted @ residual.reshape(pairs, -1, 1)
        # A little damping: in a flat picture nothing fixes the pose.
        trace = np.trace(normal, axis1=1, axis2=2)
        damping = _DAMPING * trace / free + 1e-2
        normal += damping[:, None, None] * np.eye(free, dtype=np.float32)
        step = np.zeros((pairs, 6), np.float32)
        step[:, chosen] = np.clip(np.linalg.solve(normal, target)[..., 0], -0.12, 0.12)
        pose = _possible(_composed(pose, step.reshape(pairs, 2, 3)))
    return pose


def _composed(pose: Floats, step: Floats) -> Floats:
    """The pose after the inverse of (identity + step): the step was found on the second picture."""
    last = np.tile(np.array([[[0, 0, 1]]], np.float32), (len(pose), 1, 1))
    moved = np.concatenate([step + np.eye(2, 3, dtype=np.float32), last], axis=1)
    whole = np.concatenate([pose, last], axis=1) @ np.linalg.inv(moved)
    return np.asarray(whole[:, :2], np.float32)


def _possible(pose: Floats) -> Floats:
    """The nearest pose within the limits."""
    low = np.array(
        [[1 / MAX_SCALE, -MAX_SHEAR, -MAX_SHIFT], [-MAX_SHEAR, 1 / MAX_SCALE, -MAX_SHIFT]]
    )
    high = np.array([[MAX_SCALE, MAX_SHEAR, MAX_SHIFT], [MAX_SHEAR, MAX_SCALE, MAX_SHIFT]])
    return np.asarray(np.clip(pose, low, high), np.float32)


def warp(pictures: Floats, pose: Floats) -> Floats:
    """(P, S, S) pictures sampled at their poses, bilinearly; outside, their edges go on."""
    import cv2

    side = pictures.shape[1]
    out = np.empty_like(pictures)
    pixels = np.empty((len(pose), 2, 3))
    pixels[:, :, :2] = pose[:, :, :2]
    first = 1 / side - 1  # coordinate of the first pixel's centre
    pixels[:, :, 2] = side / 2 * (pose[:, :, :2].sum(axis=2) * first + pose[:, :, 2] + 1) - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for picture, matrix, place in zip(pictures, pixels, out, strict=True):
        cv2.warpAffine(picture, matrix, (side, side), place, flags, cv2.BORDER_REPLICATE)
    return out


def inside(pose: Floats, side: int) -> Floats:
    """(P, S, S) 1 where the pose looks into the first picture, else 0."""
    at = _axis(side)
    seen = [
        np.abs(
            pose[:, axis, 0, None, None] * at[None, None, :]
            + pose[:, axis, 1, None, None] * at[None, :, None]
            + pose[:, axis, 2, None, None]
        )
        <= 1 + 1e-4
        for axis in (0, 1)
    ]
    return (seen[0] & seen[1]).astype(np.float32)


def smooth(pictures: Floats) -> Floats:
    """A binomial 3 x 3 filter over (P, S, S)."""
    import cv2

    out = np.empty_like(pictures)
    for picture, place in zip(pictures, out, strict=True):
        cv2.sepFilter2D(
            picture, cv2.CV_32F, _BINOMIAL, _BINOMIAL, place, borderType=cv2.BORDER_REPLICATE
        )
    return out


_BINOMIAL = np.array([0.25, 0.5, 0.25], np.float32)


def _halved(pictures: Floats) -> Floats:
    rows = pictures[:, ::2] + pictures[:, 1::2]
    return np.asarray((rows[:, :, ::2] + rows[:, :, 1::2]) / 4)


@lru_cache(maxsize=8)
def _axis(side: int) -> Floats:
    return ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)


@lru_cache(maxsize=8)
def _window(side: int) -> Floats:
    """(S, S) weights: little for the outer eighth, where labels, logos and frames stand."""
    inner = (np.abs(_axis(side)) < 0.75).astype(np.float32)
    return np.asarray(RIM_WEIGHT + (1 - RIM_WEIGHT) * inner[:, None] * inner)


def _starts() -> Floats:
    """No crop; then 6 and 12% off each side, centred or from one corner, in both directions."""
    poses = [(1.0, 0.0, 0.0)]
    for scale in (0.94, 0.88, 1 / 0.94, 1 / 0.88):
        room = abs(1 - scale)
        corners = [(x, y) for x in (-room, room) for y in (-room, room)]
        poses += [(scale, x, y) for x, y in [(0.0, 0.0), *(corners if room > 0.1 else [])]]
    return np.array([[[s, 0, x], [0, s, y]] for s, x, y in poses], np.float32)


_STARTS = _starts()
