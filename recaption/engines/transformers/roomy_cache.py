"""A key-value cache whose rows come and go, with room for the tokens to come.

transformers' DynamicCache copies every key and value once a step, since each token is appended to a
new tensor; here a token is written into room left for it. Rows can leave and others can join, which
transformers' continuous batching offers for texts only (5.23).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

_ROOM = 64  # positions that are added where there is no room left


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, (B, H, L, D) each, in buffers with room behind."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        """`keys` and `values` are the buffers (B, H, room, D), filled up to `length`."""
        super().__init__()
        self._buffers = (keys, values)
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._show(length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (B, H, Q, D) states; all keys and values up to them."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            keys, values = self._buffers
            size = end + _ROOM
            self._buffers = (_with_room(keys, size, start), _with_room(values, size, start))
        self._buffers[0][:, :, start:end] = key_states
        self._buffers[1][:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def can_hold(cache: Any, positions: int) -> bool:
    """Whether a cache that a model filled holds that many positions of every row in every layer.

    Recurrent states do not, and sliding windows only while a text is shorter than the window.
    """
    layers = getattr(cache, "layers", None)
    known = (DynamicLayer, DynamicSlidingWindowLayer)
    return bool(layers) and all(
        type(layer) in known and layer.get_seq_length() == layer.keys.shape[-2] == positions
        for layer in layers  # type: ignore[union-attr]
    )


def window_of(cache: Any) -> int | None:
    """Positions of the narrowest sliding window; None where there is none."""
    windows = [layer.sliding_window for layer in cache.layers if layer.is_sliding]
    return min(windows, default=None)


def joined(
    parts: Sequence[tuple[Cache, torch.Tensor | None, int]], length: int, room: int
) -> Cache:
    """One cache of the rows of several, right-aligned: every part ends at the same position.

    Memory is one layer above that of the result, for the parts are emptied layer by layer.

    Args:
        parts: (cache, rows that are kept or None for all, positions dropped at its left end).
        length: positions of the longest part, without those dropped.
        room: positions left free behind.
    """
    layers = []
    for number in range(len(parts[0][0].layers)):
        buffers = []
        for name in ("keys", "values"):
            pieces = []
            for cache, rows, dropped in parts:
                piece = getattr(cache.layers[number], name)[:, :, dropped:]
                pieces.append(piece if rows is None else piece[rows])
            buffers.append(_right_aligned(pieces, length, room))
            del pieces, piece
        for cache, _, _ in parts:
            cache.layers[number] = None
        layers.append(RoomyLayer(buffers[0], buffers[1], length))
    return Cache(layers=layers)


def _right_aligned(pieces: Sequence[torch.Tensor], length: int, room: int) -> torch.Tensor:
    count = sum(len(piece) for piece in pieces)
    first = pieces[0]
    # Zeros at the left, not what lay in memory: a masked NaN would still spoil the sum.
    buffer = first.new_zeros((count, first.shape[1], length + room, first.shape[3]))
    start = 0
    for piece in pieces:
        buffer[start : start + len(piece), :, length - piece.shape[2] : length] = piece
        start += len(piece)
    return buffer


def _with_room(buffer: torch.Tensor, size: int, filled: int) -> torch.Tensor:
    wider = buffer.new_zeros((*buffer.shape[:2], size, buffer.shape[3]))
    wider[:, :, :filled] = buffer[:, :, :filled]
    return wider
