"""Where each picture lies in the dataset's tars, and its bytes from there, unchanged."""

from __future__ import annotations

import tarfile
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import IO

import pyarrow as pa

from curate.base.errors import DatasetError
from curate.store.dataset import Dataset
from curate.store.shards import IMAGE_EXTENSIONS

PLACES = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),
        ("extension", pa.string()),
        ("offset", pa.int64()),  # bytes into the tar, of the picture itself
        ("size", pa.int64()),  # bytes
    ]
)
_BLOCK = 512
_MOST_OPEN = 64


def picture_places(dataset: Dataset, shard: str, keys: Collection[str]) -> pa.Table:
    """The pictures of `keys` in one shard; reads the tar's headers only. Schema PLACES.

    Raises:
        DatasetError: the tar is missing or damaged.
    """
    path = dataset.shard_path(shard)
    rows: list[tuple[str, str, str, int, int]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or it remembers all of them
                key, _, extension = member.name.partition(".")
                if extension in IMAGE_EXTENSIONS and key in keys:
                    rows.append((key, shard, extension, member.offset_data, member.size))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{path} is missing; `caplab check {dataset.directory} --repair` fetches it again."
        ) from error
    except (OSError, tarfile.TarError) as error:
        raise DatasetError(
            f"{path} is unreadable ({error}); `caplab check {dataset.directory} --repair` fetches "
            f"it again."
        ) from error
    columns = list(zip(*rows, strict=True)) or [()] * len(PLACES)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, PLACES, strict=True)], PLACES)


class PictureReader:
    """Reads pictures by place; keeps the 64 tars open that were used last."""

    def __init__(self, dataset: Dataset) -> None:
        """Nothing is opened yet."""
        self._dataset = dataset
        self._open: OrderedDict[str, IO[bytes]] = OrderedDict()

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self._open.values():
            stream.close()

    def read(self, key: str, shard: str, offset: int, size: int) -> bytes:
        """The bytes of one picture.

        Raises:
            DatasetError: the tar holds something else there now.
        """
        stream = self._stream(shard)
        stream.seek(offset - _BLOCK)
        block = stream.read(_BLOCK + size)
        if len(block) < _BLOCK + size or not block.startswith(f"{key}.".encode()):
            raise DatasetError(
                f"{self._dataset.shard_path(shard)} changed while it was exported; run the same "
                f"command again with another --out."
            )
        return block[_BLOCK:]

    def _stream(self, shard: str) -> IO[bytes]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if len(self._open) >= _MOST_OPEN:
            self._open.popitem(last=False)[1].close()
        path: Path = self._dataset.shard_path(shard)
        try:
            self._open[shard] = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}).") from error
        return self._open[shard]
