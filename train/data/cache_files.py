"""Files of a cache: raw .npy arrays that are mapped into memory, and a manifest that names them.

    FOLDER/manifest.json   identity and precision, and shape, bytes and sha256 of every array
    FOLDER/NAME.npy        bfloat16 as uint16, which numpy has no word for

An array counts once the manifest names it, so after a kill whole ones are kept and others made
again. Sizes are looked at whenever a cache is opened, hashes when `caplab train --precompute` is
run again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, fingerprint, read_record, sha256_file, write_json

MANIFEST = "manifest.json"
FORMAT = 1
_SAVED_EVERY = 5.0  # seconds between manifests, so that many small arrays cost few of them


class CacheFiles:
    """The arrays of one cache folder."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self._maps: dict[str, Tensor] = {}
        self._saved = time.monotonic()

    def __reduce__(self) -> tuple[Any, ...]:
        return CacheFiles, (self.folder, self.manifest)

    @classmethod
    def open(cls, folder: Path, identity: dict[str, Any]) -> CacheFiles:
        """A cache to read.

        Raises:
            DatasetError: it is unfinished, of another identity, cut or lost in part.
        """
        files = cls(folder, _manifest(folder, identity))
        for name, note in files.arrays.items():
            path = files.path(name)
            size = path.stat().st_size if path.exists() else 0
            if size != note["bytes"]:
                raise DatasetError(
                    f"{path} has {size:,} of {note['bytes']:,} bytes; `caplab train --precompute` "
                    f"with the same settings makes it again."
                )
        return files

    @classmethod
    def begin(cls, folder: Path, identity: dict[str, Any], **facts: Any) -> CacheFiles:
        """A cache to write or to go on with; `facts` are what a new manifest says besides.

        Raises:
            DatasetError: another identity lies there.
        """
        if (folder / MANIFEST).exists():
            return cls(folder, _manifest(folder, identity))
        new = {"format": FORMAT, "identity": identity, "arrays": {}, **facts}
        return cls(folder, new)

    @property
    def arrays(self) -> dict[str, dict[str, Any]]:
        """Name -> shape, dtype, bytes, sha256."""
        found: dict[str, dict[str, Any]] = self.manifest["arrays"]
        return found

    def path(self, name: str) -> Path:
        """The file of an array."""
        return self.folder / f"{name}.npy"

    def damaged(self, hashes: bool = True) -> list[str]:
        """Names of arrays that are not what was written, by size and, where asked, sha256."""
        return [
            name
            for name, note in self.arrays.items()
            if not self.path(name).exists()
            or self.path(name).stat().st_size != note["bytes"]
            or (hashes and sha256_file(self.path(name)) != note["sha256"])
        ]

    def drop(self, name: str) -> None:
        """Forget an array, so that it is made again."""
        self.arrays.pop(name, None)
        self._maps.pop(name, None)

    def write(self, arrays: dict[str, Tensor], last: bool = False) -> None:
        """Write arrays, which count together, and at times the manifest; at `last` always."""
        notes = {}
        for name, array in arrays.items():
            with atomic_path(self.path(name)) as temporary:
                stored = array.contiguous()
                if stored.dtype == torch.bfloat16:
                    stored = stored.view(torch.uint16)
                with open(temporary, "wb") as file:
                    np.save(file, stored.numpy())
                notes[name] = {
                    "shape": list(array.shape),
                    "dtype": str(array.dtype).removeprefix("torch."),
                    "bytes": temporary.stat().st_size,
                    "sha256": sha256_file(temporary),
                }
        self.arrays.update(notes)
        if last or time.monotonic() - self._saved > _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.folder / MANIFEST, self.manifest)
        self._saved = time.monotonic()

    def map(self, name: str) -> Tensor:
        """An array, mapped: no bytes are read before they are used, and no file is held open."""
        if name not in self._maps:
            note = self.arrays[name]
            dtype = getattr(torch, note["dtype"])
            raw = torch.from_file(str(self.path(name)), size=note["bytes"], dtype=torch.uint8)
            values = int(np.prod(note["shape"], dtype=np.int64)) * dtype.itemsize
            # The header comes first; numpy fills it up to a multiple of 64.
            self._maps[name] = raw[note["bytes"] - values :].view(dtype).view(note["shape"])
        return self._maps[name]


@dataclass(frozen=True)
class CachePart:
    """One cache: pictures, latents or text."""

    kind: str
    folder: Path
    count: int
    """Pictures, or captions."""
    missing: int
    """Of these, before this call."""
    needs: int
    """Bytes that were missing; of features that padding is cut from, about."""

    def line(self) -> str:
        """For people."""
        noun = "captions" if self.kind == "text" else "pictures"
        return (
            f"{self.kind}: {self.missing:,} of {self.count:,} {noun} were missing, "
            f"{self.needs / 1e9:,.3f} GB, in {self.folder}"
        )


def cache_folder(parent: Path, kind: str, identity: dict[str, Any]) -> Path:
    """Where a cache of this identity lies."""
    return parent / f"{kind}-{fingerprint(identity)}"


def _manifest(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    if not (folder / MANIFEST).exists():
        raise DatasetError(
            f"{folder} is not finished; `caplab train --precompute` with the same settings goes on."
        )
    manifest = read_record(folder / MANIFEST)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("arrays"), dict):
        raise DatasetError(f"{folder / MANIFEST} is no manifest of this version; delete {folder}.")
    if fingerprint(manifest.get("identity")) != fingerprint(identity):
        raise DatasetError(
            f"{folder} was made from other pictures, captions or models than its name says; "
            f"delete it."
        )
    return manifest
