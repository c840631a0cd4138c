"""Heads on the CLIP image embedding: aesthetic score, NSFW probability, and published ones.

A head is a stack of linear layers in a safetensors file: keys `layers.0.weight` (out, in) and
`layers.0.bias` (out,), `layers.1.weight`, ...; metadata `activation`, "relu" or "none", says what
stands between layers, `output`, "score" or "sigmoid", what is done to the last layer's single
number. Dropout does nothing at inference and is not stored. A stack without activations folds to
one dot product, and is folded when it is loaded: LAION's improved aesthetic predictor costs one
multiplication of 768 numbers, whatever its five layers look like.

Published heads are pickles; `convert_head` turns one into this format once, when the caller allows:

    LAION-AI/aesthetic-predictor, sa_0_4_vit_*_linear.pth          activation "none"
    christophschuhmann/improved-aesthetic-predictor, *linearMSE    activation "none"
    christophschuhmann/improved-aesthetic-predictor, *reluMSE      activation "relu"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from curate.errors import ConfigError
from curate.files import atomic_path, sha256_file
from curate.scorers.scorer import Column, Columns, Scorer
from curate.weights import load_state_dict, metadata

Activation = Literal["relu", "none"]
Output = Literal["score", "sigmoid"]


class Head:
    """A loaded head: `weights` [(out, in)], `biases` [(out,)], float32."""

    def __init__(
        self,
        weights: list[NDArray[np.float32]],
        biases: list[NDArray[np.float32]],
        activation: Activation,
        output: Output,
    ) -> None:
        self.activation, self.output = activation, output
        if activation == "none":
            weights, biases = _folded(weights, biases)
        self.weights, self.biases = weights, biases

    @classmethod
    def load(cls, path: Path | str) -> Head:
        """Read a head.

        Raises:
            ConfigError: missing or unreadable file, or not a head in the format above.
        """
        layers = _stack(load_state_dict(path), path)
        notes = metadata(path)
        activation, output = notes.get("activation"), notes.get("output")
        if activation not in ("relu", "none") or output not in ("score", "sigmoid"):
            raise ConfigError(
                f"{path} must say activation (relu or none) and output (score or sigmoid) in its "
                f"metadata, not {activation!r} and {output!r}; write it with convert_head."
            )
        weights, biases = zip(*layers, strict=True)
        return cls(list(weights), list(biases), activation, output)  # type: ignore[arg-type]

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
        value: NDArray[np.floating[Any]] = np.asarray(embedding, np.float32)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            value = value @ weight.T + bias
            if self.activation == "relu" and index < len(self.weights) - 1:
                value = np.maximum(value, 0)
        value = value[:, 0]
        if self.output == "sigmoid":
            value = 1 / (1 + np.exp(-value))
        return np.asarray(value, np.float32)


def _folded(
    weights: list[NDArray[np.float32]], biases: list[NDArray[np.float32]]
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """A stack without activations as one layer; in float64, so that it costs one rounding."""
    total: NDArray[np.float64] = weights[0].astype(np.float64)
    offset: NDArray[np.float64] = biases[0].astype(np.float64)
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        total, offset = weight @ total, weight @ offset + bias
    return [total.astype(np.float32)], [offset.astype(np.float32)]


class _HeadScorer(Scorer):
    needs = ("image_embedding",)
    column: ClassVar[str]

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ConfigError(f"The {self.name} head {path} does not exist.")
        self.sha256 = sha256_file(self.path)
        self._head: Head | None = None

    def signature(self) -> dict[str, Any]:
        """The weights' hash."""
        return {"version": 1, "sha256": self.sha256}

    def open(self) -> None:
        self._head = Head.load(self.path)

    @property
    def head(self) -> Head:
        """The loaded head; loads it when needed."""
        if self._head is None:
            self.open()
        assert self._head is not None
        return self._head

    @property
    def width(self) -> int:
        """Length of the embedding that the head takes."""
        return self.head.width

    def score(self, columns: Mapping[str, Column]) -> Columns:
        return {self.column: self.head(columns["image_embedding"])}


class AestheticHead(_HeadScorer):
    """Column `aesthetic`: LAION's heads give about 1 to 10, and 5 is the usual threshold."""

    name = "aesthetic"
    column = "aesthetic"
    adds = ("aesthetic",)


class NsfwHead(_HeadScorer):
    """Column `nsfw`: probability in 0..1 that the picture is unsafe; 0.5 is the usual threshold."""

    name = "nsfw"
    column = "nsfw"
    adds = ("nsfw",)


def convert_head(
    source: Path | str,
    target: Path | str,
    *,
    activation: Activation = "none",
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
    import torch
    from safetensors.torch import save_file

    layers = _stack(load_state_dict(source, allow_pickle=allow_pickle), source)
    tensors = {}
    for index, (weight, bias) in enumerate(layers):
        tensors[f"layers.{index}.weight"] = torch.from_numpy(weight)
        tensors[f"layers.{index}.bias"] = torch.from_numpy(bias)
    notes = {"activation": activation, "output": output, "source_sha256": sha256_file(source)}
    with atomic_path(target) as temporary:
        save_file(tensors, temporary, metadata=notes)
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
