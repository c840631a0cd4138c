"""Outlines of the world's shapes, as inside-tests on the unit square.

Every function takes coordinates `u` (rightwards) and `v` (downwards), both in units of the object's
half-extent so that the shape lies within [-1, 1], and returns a boolean array of the same shape.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Inside = Callable[[Array, Array], NDArray[np.bool_]]


def _circle(u: Array, v: Array) -> NDArray[np.bool_]:
    return u * u + v * v <= 1


def _square(u: Array, v: Array) -> NDArray[np.bool_]:
    return np.maximum(abs(u), abs(v)) <= 0.92


def _triangle(u: Array, v: Array) -> NDArray[np.bool_]:
    return (abs(u) <= (v + 1) / 1.9) & (v <= 0.9)


def _cross(u: Array, v: Array) -> NDArray[np.bool_]:
    arms = np.minimum(abs(u), abs(v)) <= 0.3
    return arms & (np.maximum(abs(u), abs(v)) <= 1)


def _ring(u: Array, v: Array) -> NDArray[np.bool_]:
    radius = u * u + v * v
    return (radius <= 1) & (radius >= 0.6**2)


def _bar(u: Array, v: Array) -> NDArray[np.bool_]:
    return (abs(u) <= 1) & (abs(v) <= 0.36)


def _diamond(u: Array, v: Array) -> NDArray[np.bool_]:
    return abs(u) + abs(v) <= 1


def _moon(u: Array, v: Array) -> NDArray[np.bool_]:
    return (u * u + v * v <= 1) & ((u - 0.5) ** 2 + v * v >= 0.8**2)


def _hourglass(u: Array, v: Array) -> NDArray[np.bool_]:
    return (abs(u) <= abs(v) * 0.95 + 0.06) & (abs(v) <= 0.92)


def _frame(u: Array, v: Array) -> NDArray[np.bool_]:
    reach = np.maximum(abs(u), abs(v))
    return (reach <= 0.94) & (reach >= 0.55)


def _pillar(u: Array, v: Array) -> NDArray[np.bool_]:
    return _bar(v, u)


SHAPES: dict[str, Inside] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "bar": _bar,
    "moon": _moon,
    "hourglass": _hourglass,
    "frame": _frame,
    "diamond": _diamond,
    "pillar": _pillar,
}
