"""Files of a cache: safetensors that are mapped into memory, and a manifest that names them.

    FOLDER/KIND-IDENTITY/manifest.json       identity; bytes, sha256 and notes of every file
    FOLDER/KIND-IDENTITY/NAME.safetensors

A file counts once the manifest names it, so after a kill whole ones are kept and others made
again. Sizes are looked at whenever a cache is opened, hashes when `caplab train --precompute` is
run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, fingerprint, read_record, sha256_file, write_json
from curate.base.telling.words import amount

MANIFEST = "manifest.json"
FORMAT = 2
_SAVED_EVERY = 5.0  # seconds between manifests, so that many small files cost few of them


class CacheFiles:
    """The files of one cache."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.notes: dict[str, dict[str, Any]] = manifest["files"]
        """Name -> bytes, sha256 and what its writer noted."""
        self._maps: dict[str, dict[str, Tensor]] = {}
        self._saved = time.monotonic()

    def __reduce__(self) -> tuple[Any, ...]:
        return CacheFiles, (self.folder, self.manifest)

    @classmethod
    def open(cls, parent: Path, kind: str, identity: dict[str, Any]) -> CacheFiles | None:
        """The cache of this kind and identity, to be read; None where none was begun.

        Raises:
            DatasetError: it is unfinished, of another identity, cut or lost in part.
        """
        folder = parent / f"{kind}-{fingerprint(identity)}"
        if not folder.exists():
            return None
        files = cls(folder, _manifest(folder, identity))
        if damaged := files.damaged(hashes=False):
            raise DatasetError(
                f"{files.path(damaged[0])} was cut or lost; `caplab train --precompute` with the "
                f"same settings makes it again."
            )
        return files

    @classmethod
    def begin(cls, parent: Path, kind: str, identity: dict[str, Any], **facts: Any) -> CacheFiles:
        """The same, to be written or gone on with; `facts` stand in a new manifest.

        Raises:
            DatasetError: another identity lies there.
        """
        folder = parent / f"{kind}-{fingerprint(identity)}"
        if (folder / MANIFEST).exists():
            return cls(folder, _manifest(folder, identity))
        return cls(folder, {"format": FORMAT, "identity": identity, "files": {}, **facts})

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self.folder / f"{name}.safetensors"

    def damaged(self, hashes: bool) -> list[str]:
        """Names of files that are not what was written, by size and, where asked, sha256."""
        return [
            name
            for name, note in self.notes.items()
            if not self.path(name).exists()
            or self.path(name).stat().st_size != note["bytes"]
            or (hashes and sha256_file(self.path(name)) != note["sha256"])
        ]

    def forget_damaged(self, hashes: bool, say: Callable[[str], None]) -> bool:
        """Take what is damaged out of the manifest, so that it is made again; whether any is."""
        damaged = self.damaged(hashes)
        for name in damaged:
            say(f"{self.path(name)} is not what was written; it is made again")
            del self.notes[name]
        return bool(damaged)

    def write(self, name: str, tensors: dict[str, Tensor], **told: Any) -> None:
        """Write a file, and at times the manifest; `told` is noted there."""
        from safetensors.torch import save_file

        with atomic_path(self.path(name)) as temporary:
            save_file(tensors, temporary)
            size, mark = temporary.stat().st_size, sha256_file(temporary)
        self.notes[name] = {"bytes": size, "sha256": mark, **told}
        if time.monotonic() - self._saved > _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Write the manifest."""
        write_json(self.folder / MANIFEST, self.manifest)
        self._saved = time.monotonic()

    def map(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file, of which no byte is read before it is used.

        Raises:
            DatasetError: it is damaged.
        """
        if name not in self._maps:
            from safetensors import SafetensorError, safe_open

            try:
                with safe_open(self.path(name), "pt") as file:
                    self._maps[name] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise DatasetError(
                    f"{self.path(name)} is damaged ({error}); `caplab train --precompute` with the "
                    f"same settings makes it again."
                ) from error
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
        of = amount(self.count, "caption" if self.kind == "text" else "picture")
        return (
            f"{self.kind}: {self.missing:,} of {of} missing before, "
            f"{self.needs / 1e6:,.1f} MB, in {self.folder}"
        )


def _manifest(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    if not (folder / MANIFEST).exists():
        raise DatasetError(
            f"{folder} is not finished; `caplab train --precompute` with the same settings goes on."
        )
    manifest = read_record(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise DatasetError(f"{folder / MANIFEST} is no manifest of this version; delete {folder}.")
    if fingerprint(manifest.get("identity")) != fingerprint(identity):
        raise DatasetError(
            f"{folder} was made from other pictures, captions or models than its name says; "
            f"delete it."
        )
    return manifest
