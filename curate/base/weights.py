"""Weights from disk: safetensors by default; a pickle only where the user asks for it by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curate.base.errors import ConfigError
from curate.base.files import sha256_file

if TYPE_CHECKING:
    import torch

SAFE_SUFFIX = ".safetensors"


def load_state_dict(path: Path | str, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    """Tensors of a weights file, on the CPU.

    Args:
        path: a .safetensors file, or with `allow_pickle` a PyTorch checkpoint.
        allow_pickle: a pickle can run code while it loads, so it is refused unless the user
            said so; even then only tensors are unpickled (`weights_only`).

    Raises:
        ConfigError: missing file, unreadable file, or a pickle without leave.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"The weights file {path} does not exist.")
    if path.suffix == SAFE_SUFFIX:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors: dict[str, torch.Tensor] = load_file(path)
        except SafetensorError as error:
            raise ConfigError(f"{path} is not a valid safetensors file ({error}).") from error
        return tensors
    if not allow_pickle:
        raise ConfigError(
            f"{path} is not a safetensors file and a pickle can run code when it is loaded; "
            f"convert it, or say --allow-pickle if you trust where it came from."
        )
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, EOFError, RuntimeError: it is no such file
        first = str(error).strip().splitlines()
        raise ConfigError(
            f"{path} does not load as plain tensors ({first[0] if first else 'unreadable'})."
        ) from error
    return dict(state.get("state_dict", state))


def metadata(path: Path | str) -> dict[str, str]:
    """The string metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as opened:
        return dict(opened.metadata() or {})


def weight_hashes(path: Path | str) -> dict[str, str]:
    """sha256 of a weights file, or of every weights file of a model folder, by file name.

    Raises:
        ConfigError: nothing is there, or a folder holds only pickles.
    """
    path = Path(path)
    if path.is_file():
        return {path.name: sha256_file(path)}
    if not path.is_dir():
        raise ConfigError(f"There are no weights at {path}.")
    found = sorted(path.rglob(f"*{SAFE_SUFFIX}"))
    if not found:
        raise ConfigError(f"{path} holds no {SAFE_SUFFIX} files.")
    return {str(file.relative_to(path)): sha256_file(file) for file in found}
