"""Is b an edited copy of a? Register two thumbnails and compare what they show.

Hashes and embeddings only propose: distinct pictures with one layout of light share a hash, and an
embedding cannot tell two similar scenes apart. The decision is made here, on 32 x 32 RGB
thumbnails, by asking whether some crop, rescaling and change of light turns one into the other:

1. Register: find scale and shift on each axis (4 numbers), plus one gain and one offset of light,
   by Gauss-Newton on smoothed thumbnails (Lucas and Kanade, 1981). Only what a crop can do is
   allowed: a shift no larger than the scale makes room for.
2. Compare inside the picture, away from the outer 6/32 where labels, logos and captions stand:
   `difference` is the squared difference of the smoothed thumbnails over their variance, 0 for
   equal pictures, 1 for no relation; `worst` is the same where it is largest (one object exchanged
   in a busy scene); `detail` is the correlation of their fine structure (thumbnail minus smoothed),
   1 for the same picture and about 0 for two pictures of one layout. `busy` is the share of the
   inside that has fine structure, of the plainer of the two.

A copy needs all three: small differences everywhere, and agreement in the detail. All steps are
array operations over a block of pairs; about 1.9 CPU ms a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

STEPS, FINE_STEPS = 7, 3
"""Gauss-Newton steps at half and at full resolution; the last move by hundredths of a pixel."""
MAX_SCALE = 1.28
"""Largest relative scale: crops of up to 22% of a side."""
GAIN = (0.6, 1.6)
"""Range of the change of contrast."""
SLACK = 0.012
"""Shift (of half a side) beyond what the scale makes room for: uneven crops and resampling."""
EDGE = 6
"""Outer pixels of the thumbnail that are left out of the comparison."""
NOISE = 4.0
"""Variance (of 8-bit levels, squared) below which a thumbnail is flat and everything is noise."""
STRUCTURE = 6.0
"""8-bit levels by which a pixel must leave its surroundings to count as fine structure."""
_COARSE = 8


@dataclass(frozen=True)
class Agreement:
    """How far each pair agrees, (P,) each; see the module. `scale`, `shift` are (P, 2): x, y."""

    difference: Floats
    detail: Floats
    worst: Floats
    busy: Floats
    scale: Floats
    shift: Floats


def compare(first: NDArray[np.uint8], second: NDArray[np.uint8], block: int = 512) -> Agreement:
    """Register and compare P pairs of thumbnails, (P, T, T, 3) uint8 each.

    Either may be the crop of the other; a mirrored copy has to be mirrored back by the caller.
    Memory: 60 KB a pair of a block.
    """
    parts = [
        _compare(first[start : start + block], second[start : start + block])
        for start in range(0, len(first), block)
    ]
    if not parts:
        return Agreement(
            *(np.zeros(shape, np.float32) for shape in ((0,), (0,), (0,), (0,), (0, 2), (0, 2)))
        )
    return Agreement(
        np.concatenate([part.difference for part in parts]),
        np.concatenate([part.detail for part in parts]),
        np.concatenate([part.worst for part in parts]),
        np.concatenate([part.busy for part in parts]),
        np.concatenate([part.scale for part in parts]),
        np.concatenate([part.shift for part in parts]),
    )


def coarse_difference(
    first: NDArray[np.uint8], second: NDArray[np.uint8], crop: float = 0.0
) -> Floats:
    """A cheap bound: difference at 8 x 8 points of `first`'s centre crop and the whole `second`.

    (P, T, T, 3) uint8 twice -> (P,). Without registration, so a copy may differ by up to about
    one half where a hash proposed it. About 30 CPU us a pair.
    """
    side = first.shape[1]
    edges = np.linspace(crop / 2, 1 - crop / 2, _COARSE + 1) * side
    whole = np.linspace(0, side, _COARSE + 1)
    a = _averages(first.astype(np.float32), edges)
    b = _averages(second.astype(np.float32), whole)
    return _difference(a, np.ones(a.shape[:3], bool), b, edge=1)[0]


def _averages(pictures: Floats, edges: NDArray[np.float64]) -> Floats:
    """Mean colour between neighbouring `edges` (pixels) on both axes."""
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(pictures.shape[1])[None]
    overlap = np.clip(np.minimum(pixel + 1, high) - np.maximum(pixel, low), 0, None)
    average = (overlap / (high - low)).astype(np.float32)
    rows = average @ pictures.reshape(len(pictures), pictures.shape[1], -1)
    return np.asarray(average @ rows.reshape(len(pictures), len(average), -1, 3))


def _compare(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Agreement:
    sharp_a, sharp_b = first.astype(np.float32), second.astype(np.float32)
    # Once smoothed keeps some detail for `detail`; twice more is what is registered.
    light_a, light_b = _smooth(sharp_a), _smooth(sharp_b)
    soft_a, soft_b = _smooth(light_a), _smooth(light_b)
    # First at half the resolution, where a step costs a quarter and the basin is wider.
    still = np.tile(np.array([1, 0, 1, 0], np.float32), (len(first), 1))
    pose = _register(_halved(soft_a), _halved(soft_b), still, STEPS)
    pose = _register(soft_a, soft_b, pose, FINE_STEPS)
    difference, worst = _difference(*_warp(soft_a, pose), soft_b)
    # A label can pull the pose of a plain picture away from a better one: no crop at all.
    difference_still, worst_still = _difference(soft_a, np.ones(soft_a.shape[:3], bool), soft_b)
    better = difference_still <= difference
    pose = np.where(better[:, None], still, pose)
    difference = np.where(better, difference_still, difference)
    worst = np.where(better, worst_still, worst)
    warped, inside = _warp(light_a, pose)
    detail = _correlation(_fine(warped), _fine(light_b), _interior(inside))
    busy = np.minimum(_busy(sharp_a), _busy(sharp_b))
    return Agreement(difference, detail, worst, busy, pose[:, 0::2], pose[:, 1::2])


def _register(a: Floats, b: Floats, pose: Floats, steps: int) -> Floats:
    """Pose (P, 4) = scale x, shift x, scale y, shift y, so that a, sampled at it, looks like b.

    Coordinates run from -1 to 1 over the picture. Solves the normal equations of
    b - gain * a(pose) - offset, linearised in the pose; gain and offset are refitted every step.
    """
    pairs, side = a.shape[:2]
    at = _axis(side)
    for _ in range(steps):
        warped, inside = _warp(a, pose)
        gain, offset = _light(warped, b, inside)
        weight = inside[..., None].astype(np.float32)
        residual = (b - gain * warped - offset) * weight
        slope_x = np.gradient(warped, axis=2) * (side / 2) / pose[:, 0, None, None, None]
        slope_y = np.gradient(warped, axis=1) * (side / 2) / pose[:, 2, None, None, None]
        slopes = np.stack(
            [slope_x * at[None, None, :, None], slope_x, slope_y * at[None, :, None, None], slope_y]
        )
        jacobian = (slopes * (weight * gain)).reshape(4, pairs, -1).transpose(1, 0, 2)
        normal = jacobian @ jacobian.transpose(0, 2, 1)
        target = jacobian @ residual.reshape(pairs, -1, 1)
        # A little damping: in a flat picture nothing fixes the pose.
        trace = np.trace(normal, axis1=1, axis2=2)
        normal += (1e-3 * trace / 4 + 1e-3)[:, None, None] * np.eye(4, dtype=np.float32)
        pose = _possible(pose + np.clip(np.linalg.solve(normal, target)[..., 0], -0.08, 0.08))
    return pose


def _possible(pose: Floats) -> Floats:
    """The nearest pose that a crop of one of the two pictures can have."""
    scale = np.clip(pose[:, 0::2], 1 / MAX_SCALE, MAX_SCALE)
    room = np.abs(1 - scale) + SLACK
    shift = np.clip(pose[:, 1::2], -room, room)
    return np.stack([scale[:, 0], shift[:, 0], scale[:, 1], shift[:, 1]], axis=1)


def _warp(a: Floats, pose: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """`a` (P, T, T, 3) sampled at `pose` bilinearly, and which pixels (P, T, T) lie inside a.

    Scale and shift act on each axis alone, so sampling is one matrix an axis.
    """
    columns, inside_x = _sampling(pose[:, 0], pose[:, 1], a.shape[1])
    rows, inside_y = _sampling(pose[:, 2], pose[:, 3], a.shape[1])
    sampled = (rows @ a.reshape(len(a), a.shape[1], -1)).reshape(a.shape)
    return columns[:, None] @ sampled, inside_y[:, :, None] & inside_x[:, None, :]


def _sampling(scale: Floats, shift: Floats, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    place = ((scale[:, None] * _axis(side) + shift[:, None] + 1) / 2 * side - 0.5).astype(
        np.float32
    )
    inside = (place >= -0.5) & (place <= side - 0.5)
    place = np.clip(place, 0, side - 1)
    pixels = np.arange(side, dtype=np.float32)
    return np.maximum(0, 1 - np.abs(place[:, :, None] - pixels)), inside


def _light(warped: Floats, b: Floats, inside: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Gain and offset, (P, 1, 1, 1) each, that bring `warped` nearest to `b` inside the mask.

    One gain and one offset for all three channels: light may change, colours may not.
    """
    weight = inside[..., None].astype(np.float32)
    count = np.maximum(weight.sum(axis=(1, 2), keepdims=True), 1)
    mean_w = (warped * weight).sum(axis=(1, 2), keepdims=True) / count
    mean_b = (b * weight).sum(axis=(1, 2), keepdims=True) / count
    around_w, around_b = (warped - mean_w) * weight, (b - mean_b) * weight
    every = (1, 2, 3)
    product = (around_w * around_b).sum(axis=every, keepdims=True)
    power = np.maximum((around_w * around_w).sum(axis=every, keepdims=True), 1)
    gain = np.clip(product / power, *GAIN)
    return gain, (mean_b - gain * mean_w).mean(axis=3, keepdims=True)


def _difference(
    warped: Floats, inside: NDArray[np.bool_], b: Floats, edge: int = EDGE
) -> tuple[Floats, Floats]:
    """Mean squared difference over variance, and the same where it is largest: (P,) each."""
    inside = _interior(inside, edge)
    gain, offset = _light(warped, b, inside)
    weight = inside[..., None].astype(np.float32)
    count = np.maximum(weight.sum(axis=(1, 2), keepdims=True), 1)
    mean = (b * weight).sum(axis=(1, 2), keepdims=True) / count
    residual = (b - gain * warped - offset) * weight
    power = ((b - mean) * weight) ** 2
    every = (1, 2, 3)
    pixels = np.maximum(3 * weight.sum(axis=every), 1)
    variance = np.maximum(power.sum(axis=every) / pixels, NOISE)
    error = (residual**2).mean(axis=3)
    worst = _smooth(_smooth(error[..., None]))[..., 0].max(axis=(1, 2))
    difference: Floats = (residual**2).sum(axis=every) / pixels / variance
    highest: Floats = worst / variance
    return difference, highest


def _correlation(a: Floats, b: Floats, inside: NDArray[np.bool_]) -> Floats:
    weight = inside[..., None].astype(np.float32)
    a, b = a * weight, b * weight
    every = (1, 2, 3)
    floor = 0.5 * 3 * weight.sum(axis=every)  # rounding to 8 bits alone is a variance of 1/12
    power = ((a * a).sum(axis=every) + floor) * ((b * b).sum(axis=every) + floor)
    return np.asarray((a * b).sum(axis=every) / np.sqrt(np.maximum(power, 1e-6)))


def _interior(inside: NDArray[np.bool_], edge: int = EDGE) -> NDArray[np.bool_]:
    kept = np.zeros_like(inside)
    kept[:, edge:-edge, edge:-edge] = inside[:, edge:-edge, edge:-edge]
    return kept


def _halved(pictures: Floats) -> Floats:
    pairs, side = pictures.shape[:2]
    blocks = pictures.reshape(pairs, side // 2, 2, side // 2, 2, 3)
    return np.asarray((blocks[:, :, 0] + blocks[:, :, 1]).sum(axis=3) / 4)


def _busy(pictures: Floats) -> Floats:
    fine = np.abs(_fine(pictures)).max(axis=3)[:, EDGE:-EDGE, EDGE:-EDGE]
    return np.asarray((fine > STRUCTURE).mean(axis=(1, 2)), np.float32)


def _fine(pictures: Floats) -> Floats:
    return pictures - _smooth(_smooth(pictures))


def _smooth(pictures: Floats) -> Floats:
    """Convolve (P, T, T, 3) with the binomial 1 2 1 on both axes."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4)


def _axis(side: int) -> Floats:
    return ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
