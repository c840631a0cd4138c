"""Heads on the CLIP image embedding: aesthetic score, NSFW probability, and published ones.

A head is a stack of linear layers in a safetensors file: keys `layers.0.weight` (out, in) and
`layers.0.bias` (out,), `layers.1.weight`, ...; metadata `activation`, "relu" or "none", says what
stands between layers (or each one's own, "relu,relu,none"), `output`, "score" or "sigmoid", what is
done to the last layer's single number. Dropout does nothing at inference and is not stored. Layers
without an activation between them fold to one, and are folded when they are loaded: LAION's
improved aesthetic predictor costs one multiplication of 768 numbers, whatever its five layers look
like.

Some heads were trained behind a preparation of their input, which the file may hold as well:

    input.mean, input.scale (D,)     the first layer sees (x - mean) / scale
    categories.N.values (V,)         column N is no number but a category: it is replaced by 1 + its
                                     place among these values, where a value is told by its six
                                     decimals, and by 0 where it is none of them

The second is a peculiarity of the NSFW heads that AutoKeras made; see `keras_head`.
Published heads are pickles or Keras archives; `published` knows those of LAION by name
and `convert_head` turns any other stack of linear layers into this format once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.files import atomic_path, sha256_file
from curate.base.weights import load_state_dict, metadata

Output = Literal["score", "sigmoid"]


class Head:
    """A loaded head: `weights` [(out, in)], `biases` [(out,)], float32."""

    def __init__(
        self,
        weights: list[NDArray[np.float32]],
        biases: list[NDArray[np.float32]],
        activations: Sequence[str],
        output: Output,
        preparation: Preparation | None = None,
    ) -> None:
        """Fold what can be folded; `activations` has one name less than there are layers."""
        self.output = output
        self.preparation = preparation or Preparation()
        self.weights, self.biases = _folded(weights, biases, activations)

    @classmethod
    def load(cls, path: Path | str) -> Head:
        """Read a head.

        Raises:
            ConfigError: missing or unreadable file, or not a head in the format above.
        """
        tensors = load_state_dict(path)
        layers = _stack({n: t for n, t in tensors.items() if not _is_preparation(n)}, path)
        notes = metadata(path)
        activation, output = notes.get("activation"), notes.get("output")
        between = (activation or "").split(",")
        if len(between) == 1:
            between *= max(len(layers) - 1, 1)
        fits = len(between) == max(len(layers) - 1, 1) and set(between) <= {"relu", "none"}
        if not fits or output not in ("score", "sigmoid"):
            raise ConfigError(
                f"{path} must say activation (relu or none) and output (score or sigmoid) in its "
                f"metadata, not {activation!r} and {output!r}; write it with convert_head."
            )
        weights, biases = zip(*layers, strict=True)
        preparation = Preparation.of({n: t for n, t in tensors.items() if _is_preparation(n)})
        return cls(list(weights), list(biases), between, output, preparation)  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        """Length of the embedding that it takes."""
        return self.weights[0].shape[1]

    def __call__(self, embedding: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """(B, D) L2-normalised embeddings -> (B,)."""
        if embedding.shape[1] == 0:  # nothing of this shard has an embedding
            return np.full(len(embedding), np.nan, np.float32)
        if embedding.shape[1] != self.width:
            raise ConfigError(
                f"The head takes embeddings of {self.width} numbers, but this CLIP model gives "
                f"{embedding.shape[1]}; choose the head that was trained on this model."
            )
        value: NDArray[np.floating[Any]] = self.preparation(np.asarray(embedding, np.float32))
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            value = value @ weight.T + bias
            if index < len(self.weights) - 1:
                value = np.maximum(value, 0)
        value = value[:, 0]
        if self.output == "sigmoid":
            value = 1 / (1 + np.exp(-value))
        return np.asarray(value, np.float32)


@dataclass(frozen=True)
class Preparation:
    """What is done to an embedding before the first layer; see the module. Default: nothing."""

    mean: NDArray[np.float32] | None = None
    scale: NDArray[np.float32] | None = None
    categories: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Mapping[str, Any]) -> Preparation:
        """The preparation that a head's file holds."""
        arrays = {name: np.asarray(tensor.numpy()) for name, tensor in tensors.items()}
        categories = {
            int(name.split(".")[1]): values.astype(np.float64)
            for name, values in arrays.items()
            if name.startswith("categories.")
        }
        return cls(arrays.get("input.mean"), arrays.get("input.scale"), categories)

    def __call__(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, D) -> (B, D); rows of NaN stay rows of NaN."""
        if not self.categories and self.mean is None:
            return embedding
        value = embedding.copy()
        for column, known in self.categories.items():
            value[:, column] = _category(embedding[:, column], known)
        if self.mean is not None and self.scale is not None:
            value = (value - self.mean) / self.scale
        value[np.isnan(embedding[:, 0])] = np.nan
        return value


def _category(values: NDArray[np.float32], known: NDArray[np.float64]) -> NDArray[np.float32]:
    """1 + the place of each value among `known`, 0 where it is none; told by six decimals."""
    million = np.rint(known * 1e6).astype(np.int64)
    order = np.argsort(million, kind="stable")
    asked = np.rint(np.nan_to_num(values).astype(np.float64) * 1e6).astype(np.int64)
    place = np.searchsorted(million[order], asked).clip(max=len(known) - 1)
    found = million[order][place] == asked
    return np.where(found, order[place] + 1, 0).astype(np.float32)


def _folded(
    weights: Sequence[NDArray[np.float32]],
    biases: Sequence[NDArray[np.float32]],
    activations: Sequence[str],
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Layers without an activation between them as one; in float64, so it costs one rounding."""
    folded = [(weights[0].astype(np.float64), biases[0].astype(np.float64))]
    for weight, bias, before in zip(weights[1:], biases[1:], activations, strict=False):
        if before == "none":
            total, offset = folded.pop()
            folded.append((weight @ total, weight @ offset + bias))
        else:
            folded.append((weight.astype(np.float64), bias.astype(np.float64)))
    return [w.astype(np.float32) for w, _ in folded], [b.astype(np.float32) for _, b in folded]


def _is_preparation(name: str) -> bool:
    return name.startswith(("input.", "categories."))


def convert_head(
    source: Path | str,
    target: Path | str,
    *,
    activation: str = "none",
    output: Output = "score",
    allow_pickle: bool = False,
) -> Path:
    """Write a published head (.pth or .safetensors) in this module's format.

    Accepts one linear layer (`weight`, `bias`) or a numbered stack with gaps where activation and
    dropout stood (`layers.0.weight`, `layers.2.weight`, ...). The file cannot tell whether there
    was an activation between its layers, so the caller says it.

    Raises:
        ConfigError: a pickle without `allow_pickle`, or not a stack of linear layers.
    """
    layers = _stack(load_state_dict(source, allow_pickle=allow_pickle), source)
    notes = {"activation": activation, "output": output, "source_sha256": sha256_file(source)}
    return save_head(layers, target, notes)


def save_head(
    layers: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    target: Path | str,
    notes: Mapping[str, str],
    preparation: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Write (weight, bias) layers in this module's format, with its metadata, atomically."""
    import torch
    from safetensors.torch import save_file

    arrays: dict[str, NDArray[Any]] = dict(preparation or {})
    for index, (weight, bias) in enumerate(layers):
        arrays |= {f"layers.{index}.weight": weight, f"layers.{index}.bias": bias}
    # A copy: arrays read from a file of another kind may not be writable or contiguous.
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    with atomic_path(target) as temporary:
        save_file(tensors, temporary, metadata=dict(notes))
    return Path(target)


def _stack(
    tensors: Mapping[str, Any], path: Path | str
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(weight, bias) of each layer in order of its number."""
    numbered: dict[int, dict[str, NDArray[np.float32]]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(?:.*?(\d+)\.)?(weight|bias)", name)
        if match is None:
            raise ConfigError(f"{path} is no stack of linear layers: it holds {name!r}.")
        numbered.setdefault(int(match[1] or 0), {})[match[2]] = tensor.float().numpy()
    layers = [numbered[number] for number in sorted(numbered)]
    if not layers or any(set(layer) != {"weight", "bias"} for layer in layers):
        raise ConfigError(f"{path} is no stack of linear layers with weights and biases.")
    width = layers[0]["weight"].shape[-1]
    for layer in layers:
        shape = layer["weight"].shape
        if len(shape) != 2 or shape[1] != width or layer["bias"].shape != shape[:1]:
            raise ConfigError(f"{path} is no stack of linear layers: their shapes do not chain.")
        width = shape[0]
    if width != 1:
        raise ConfigError(f"{path} ends in {width} numbers; a head must end in one.")
    return [(layer["weight"], layer["bias"]) for layer in layers]
