"""CLIP's transformer blocks without the work that nobody reads.

open_clip runs every block over every position of a padded batch. Of that, only the part that can
reach the embedding is computed here, over the same modules with the same weights:

- Sequences of any length lie packed, one behind the other, so linear layers see no padding. Texts
  of 15 tokens need not pay for 77. Attention pads, but only among sequences of nearly one length.
- The embedding is read at one position (the class token, the end of text), so the last block needs
  keys and values everywhere but a query, a projection and an MLP at that position alone: in a
  tower of 12 blocks that is 7% of the work.
- In bf16 and fp16 only the matrix products are in low precision; the running sum of the blocks
  stays in float32 on a CPU, where memory traffic is cheap beside the products. It moves embeddings
  less than rounding the sum after every block would.
- On a CPU linear layers go to oneDNN, with the GELU in the same kernel. These are the kernels that
  torch.compile picks for a frozen model; compiling would cost each worker half a minute. Where this
  torch lacks them, its ordinary layers serve.

Embeddings equal those of open_clip up to rounding. Cost of one position in one block of width D:
24 D^2 floating-point operations in linear layers, 4 L D in attention over L positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_GROUP = 8
"""Sequences are padded among themselves for attention up to a multiple of this many tokens."""


@dataclass(frozen=True)
class Packed:
    """B sequences, one behind the other: which rows belong together, and which are read.

    groups: (first row, sequences, longest, index, valid) of neighbouring sequences. Where all have
        one length, `index` and `valid` are None and the rows are used as they lie; otherwise
        index (b, longest) says which row stands where and valid (b, longest) where one does.
    read: (B,) int64, the row of each sequence at which the embedding is read.
    """

    groups: list[tuple[int, int, int, torch.Tensor | None, torch.Tensor | None]]
    read: torch.Tensor


def pack_equal(count: int, length: int, device: torch.device) -> Packed:
    """`count` sequences of one length, read at their first position (pictures)."""
    import torch

    return Packed([(0, count, length, None, None)], torch.arange(count, device=device) * length)


def pack_texts(lengths: Sequence[int], device: torch.device) -> Packed:
    """Sequences of ascending `lengths`, read at their last position."""
    import torch

    ends = torch.tensor(lengths).cumsum(0)
    groups = []
    start = first = 0
    while start < len(lengths):
        ceiling = -(-lengths[start] // _GROUP) * _GROUP
        stop = start
        while stop < len(lengths) and lengths[stop] <= ceiling:
            stop += 1
        some = torch.tensor(lengths[start:stop])
        longest = int(some[-1])
        index = valid = None
        if int(some[0]) != longest:
            place = torch.arange(longest)
            begins = (ends[start:stop] - some)[:, None]
            valid = (place < some[:, None]).to(device)
            index = (begins + torch.minimum(place, some[:, None] - 1)).to(device)
        groups.append((first, stop - start, longest, index, valid))
        first += int(some.sum())
        start = stop
    return Packed(groups, (ends - 1).to(device))


class Tower:
    """A transformer of open_clip's plain blocks, to be run over packed tokens."""

    def __init__(self, blocks: Sequence[Any], dtype: torch.dtype, device: torch.device) -> None:
        """Args: blocks of `runs`; dtype of the matrix products."""
        import torch

        self.dtype = dtype
        self.sum_dtype = torch.float32 if device.type == "cpu" else dtype
        self._blocks = [_Block(block, dtype) for block in blocks]

    @staticmethod
    def runs(blocks: Sequence[Any]) -> bool:
        """Whether these are open_clip's plain blocks, with torch's attention and no extras."""
        from open_clip.transformer import ResidualAttentionBlock
        from torch import nn

        return bool(len(blocks)) and all(
            type(block) is ResidualAttentionBlock
            and type(block.attn) is nn.MultiheadAttention
            and block.attn.in_proj_bias is not None
            and block.attn.bias_k is None
            and isinstance(block.ln_1, nn.LayerNorm)
            and type(block.mlp.c_fc) is type(block.mlp.c_proj) is nn.Linear
            for block in blocks
        )

    def __call__(self, x: torch.Tensor, packed: Packed, causal: bool) -> torch.Tensor:
        """(T, D) tokens -> (B, D) at the read positions."""
        x = x.to(self.sum_dtype)
        for block in self._blocks[:-1]:
            x = block.attended(x, packed, causal)
            x = block.mixed(x)
        last = self._blocks[-1]
        return last.mixed(last.read(x, packed))


class _Block:
    """One block's parts, with linear layers in the form that this device runs fastest."""

    def __init__(self, block: Any, dtype: torch.dtype) -> None:
        attention = block.attn
        width = attention.embed_dim
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        self.heads, self.dtype = attention.num_heads, dtype
        self.norm_1, self.norm_2 = _Norm(block.ln_1, dtype), _Norm(block.ln_2, dtype)
        self.joint = _Linear(weight, bias, dtype)
        self.query = _Linear(weight[:width], bias[:width], dtype)
        self.key_value = _Linear(weight[width:], bias[width:], dtype)
        self.out = _Linear(attention.out_proj.weight, attention.out_proj.bias, dtype)
        up = block.mlp.c_fc
        self.up = _Linear(up.weight, up.bias, dtype, block.mlp.gelu)
        self.down = _Linear(block.mlp.c_proj.weight, block.mlp.c_proj.bias, dtype)
        self.scale_1, self.scale_2 = block.ls_1, block.ls_2

    def attended(self, x: torch.Tensor, packed: Packed, causal: bool) -> torch.Tensor:
        """x + attention, everywhere: (T, D) -> (T, D)."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        joint = self.joint(self.norm_1(x))
        parts = []
        for first, count, longest, index, valid in packed.groups:
            rows = _rows(joint, first, count, longest, index)
            query, key, value = self._split(rows, 3)
            out = scaled_dot_product_attention(query, key, value, is_causal=causal)
            out = out.transpose(1, 2).reshape(count, longest, -1)
            parts.append(out.flatten(0, 1) if valid is None else out[valid])
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return x + self.scale_1(self.out(whole))

    def read(self, x: torch.Tensor, packed: Packed) -> torch.Tensor:
        """x + attention at the read positions alone: (T, D) -> (B, D)."""
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        normed = self.norm_1(x)
        joint, queries = self.key_value(normed), self.query(normed[packed.read])
        parts, done = [], 0
        for first, count, longest, index, valid in packed.groups:
            key, value = self._split(_rows(joint, first, count, longest, index), 2)
            (query,) = self._split(queries[done : done + count, None], 1)
            mask = None if valid is None else valid[:, None, None]
            out = scaled_dot_product_attention(query, key, value, attn_mask=mask)
            parts.append(out.transpose(1, 2).reshape(count, -1))
            done += count
        return x[packed.read] + self.scale_1(self.out(torch.cat(parts)))

    def mixed(self, x: torch.Tensor) -> torch.Tensor:
        """x + MLP: (N, D) -> (N, D)."""
        return x + self.scale_2(self.down(self.up(self.norm_2(x))))

    def _split(self, rows: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """(b, L, parts * D) -> `parts` tensors (b, heads, L, D / heads)."""
        count, length, width = rows.shape
        split = rows.view(count, length, parts, self.heads, width // parts // self.heads)
        return split.permute(2, 0, 3, 1, 4).unbind(0)


def _rows(
    joint: torch.Tensor, first: int, count: int, longest: int, index: torch.Tensor | None
) -> torch.Tensor:
    """One group's rows as (b, longest, ...)."""
    if index is not None:
        return joint[index]
    return joint[first : first + count * longest].view(count, longest, -1)


class _Norm:
    """A layer norm in float32, its result in the dtype of the products."""

    def __init__(self, norm: Any, dtype: torch.dtype) -> None:
        self._shape, self._eps, self._dtype = norm.normalized_shape, norm.eps, dtype
        self._weight, self._bias = norm.weight.float(), norm.bias.float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import layer_norm

        return layer_norm(x.float(), self._shape, self._weight, self._bias, self._eps).to(
            self._dtype
        )


class _Linear:
    """A linear layer and the activation behind it."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        dtype: torch.dtype,
        activation: Any = None,
    ) -> None:
        # The model's own tensors wherever the dtype agrees: no second copy of the weights.
        self._weight, self._bias = weight.detach().to(dtype), bias.detach().to(dtype)
        self._gelu = is_exact_gelu(activation)
        self._activation = None if self._gelu else activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y = linear(x, self._weight, self._bias, self._gelu)
        return y if self._activation is None else self._activation(y)


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, gelu: bool = False
) -> torch.Tensor:
    """x @ weight.T + bias, then perhaps GELU: through oneDNN on a CPU where it can."""
    import torch
    from torch.nn import functional

    if x.device.type == "cpu" and has_fused_linear(x.dtype):
        name, algorithm = ("gelu", "none") if gelu else ("none", "")
        kernel = torch.ops.mkldnn._linear_pointwise
        return torch.as_tensor(kernel(x.contiguous(), weight, bias, name, [], algorithm))
    y = functional.linear(x, weight, bias)
    return functional.gelu(y) if gelu else y


def is_exact_gelu(activation: Any) -> bool:
    """Whether this is GELU by the error function, neither an approximation nor QuickGELU."""
    from torch import nn

    return type(activation) is nn.GELU and activation.approximate == "none"


@lru_cache
def has_fused_linear(dtype: torch.dtype) -> bool:
    """Whether this torch has oneDNN's linear layer with an activation, for `dtype` on this CPU."""
    import torch

    row = torch.zeros(1, 8, dtype=dtype)
    try:
        torch.ops.mkldnn._linear_pointwise(
            row, torch.zeros(8, 8, dtype=dtype), None, "none", [], ""
        )
    except (AttributeError, RuntimeError):
        return False
    return True
