"""Writing features of all captions of an index; see `train.data.cache`."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curate.base.errors import ConfigError
from curate.base.files import temporary_path
from curate.base.progress import progress
from curate.store.scans import sql_text
from train.data.cache_files import CacheFiles, CachePart, cache_folder
from train.data.cached import HASH_BYTES, CachedText, captions_of, text_identity
from train.data.index import TrainingIndex
from train.protocols import TextFeatures, Tokens
from train.text.t5 import T5Text

_TOKENS = 1 << 14  # of a batch on the device
_PROBED, _TEXTS_AT_A_TIME = 16, 50_000


class TextsWriter:
    """Features of all captions of an index, of what is held out, and of the empty one."""

    def __init__(
        self,
        parent: Path,
        index: TrainingIndex,
        held_out: TrainingIndex,
        encoder: Any,
        device: torch.device,
        file_bytes: int,
    ) -> None:
        self.indexes, self.encoder, self.device = (index, held_out), encoder, device
        self.identity = text_identity(encoder)
        self.folder = cache_folder(parent, "text", self.identity)
        self.file_bytes = file_bytes
        self._scratch = temporary_path(parent / "texts")
        self._connection: Any = None
        self._missing = 0

    def look(self, verify: bool, say: Callable[[str], None]) -> CachePart:
        """What is missing; forgets what is damaged. Runs the encoder on a few captions."""
        import duckdb

        probe = self._probe([""])
        files = CacheFiles.begin(
            self.folder,
            self.identity,
            precision=str(probe.sequence.dtype).removeprefix("torch."),
            tokens=self.encoder.tokens,
            width=self.encoder.width,
            pooled_width=self.encoder.pooled_width,
            file_bytes=self.file_bytes,
            shards={},
            covers=[],
        )
        if files.manifest["precision"] != str(probe.sequence.dtype).removeprefix("torch."):
            raise ConfigError(
                f"{self.folder} holds features in {files.manifest['precision']}, and the encoder "
                f"computes in {str(probe.sequence.dtype).removeprefix('torch.')}; take the same "
                f"--precision, or another --cache."
            )
        if damaged := {name.partition(".")[0] for name in files.damaged(hashes=verify)}:
            for shard in sorted(damaged):
                say(f"{files.folder / shard}.* are not what was written; they are made again")
                del files.manifest["shards"][shard]
                for name in [n for n in files.arrays if n.partition(".")[0] == shard]:
                    files.drop(name)
            files.manifest["covers"] = []
            if verify:
                files.save()
        self.files, known = files, CachedText(files)
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._connection = duckdb.connect(config={"memory_limit": "512MB", "threads": 1})
        self._connection.execute(f"SET temp_directory = {sql_text(self._scratch)}")
        self._connection.execute("CREATE TABLE texts (sha BLOB, text VARCHAR)")
        total = self._gather(known)
        ((self._missing,),) = self._connection.execute(
            "SELECT count(DISTINCT sha) FROM texts"
        ).fetchall()
        rows = self._connection.execute(
            f"SELECT text FROM texts USING SAMPLE reservoir({_PROBED} ROWS) REPEATABLE (0)"
        ).fetchall()
        needs = 0
        if rows:
            some = self._probe([text for (text,) in rows])
            real = float(some.mask.float().sum() / len(rows))
            size = some.sequence.dtype.itemsize
            own = size * (real * self.encoder.width + self.encoder.pooled_width)
            needs = int(self._missing * (own + HASH_BYTES + 8 + -(-self.encoder.tokens // 8)))
        return CachePart("text", self.folder, total, self._missing, needs)

    def _probe(self, texts: list[str]) -> TextFeatures:
        tokens: Tokens = self.encoder.tokenize(texts)
        if isinstance(self.encoder, T5Text) and self.encoder.config.masked:
            # Behind the longest text all is padding, which nobody looks at: not even computed.
            longest = max(int(tokens[f"{self.encoder.config.name}.mask"].sum(1).max()), 1)
            tokens = {name: ids[:, :longest] for name, ids in tokens.items()}
        with torch.no_grad():
            features: TextFeatures = self.encoder({n: t.to(self.device) for n, t in tokens.items()})
        return features

    def _gather(self, known: CachedText) -> int:
        """Put captions that are not known into DuckDB; returns how many captions there are."""
        total, new = 1, {hashlib.sha256(b"").digest(): ""}
        if known.find(next(iter(new))) is not None:
            new.clear()
        for index in self.indexes:
            for text in index.texts():
                total += 1
                digest = hashlib.sha256(text.encode()).digest()
                if digest not in new and known.find(digest) is None:
                    new[digest] = text
                    if len(new) >= _TEXTS_AT_A_TIME:
                        self._insert(new)
                        new = {}
        self._insert(new)
        return total

    def _insert(self, new: Mapping[bytes, str]) -> None:
        import pyarrow as pa

        table = pa.table({"sha": pa.array(list(new), pa.binary()), "text": list(new.values())})
        if table.num_rows:
            self._connection.register("new", table)
            self._connection.execute("INSERT INTO texts SELECT sha, text FROM new")
            self._connection.unregister("new")

    def write(self) -> None:
        """Encode what is missing, in files behind those that are there."""
        row_bytes = self.encoder.tokens * self.encoder.width * self.files_dtype.itemsize
        count = max(self.files.manifest["file_bytes"] // row_bytes, 1)
        with progress(self._missing, "text features") as bar:
            shards = self.files.manifest["shards"]
            number = max((int(name) for name in shards), default=-1) + 1
            for texts, hashes in self._sorted(count):
                arrays = self._encoded(texts)
                arrays["hashes"] = torch.frombuffer(bytearray(b"".join(hashes)), dtype=torch.uint8)
                arrays["hashes"] = arrays["hashes"].view(-1, HASH_BYTES)
                name = f"{number:05d}"
                # In the manifest with the arrays, or after a kill not at all.
                shards[name] = {"first": hashes[0].hex(), "last": hashes[-1].hex()}
                self.files.write({f"{name}.{part}": array for part, array in arrays.items()})
                number += 1
                bar.update(len(texts))
            covers = {*self.files.manifest["covers"], captions_of(*self.indexes)}
            self.files.manifest["covers"] = sorted(covers)
            self.files.save()

    @property
    def files_dtype(self) -> torch.dtype:
        """Of the features."""
        dtype: torch.dtype = getattr(torch, self.files.manifest["precision"])
        return dtype

    def _sorted(self, count: int) -> Iterator[tuple[list[str], list[bytes]]]:
        """So many captions at a time, in the order of their hashes, each once."""
        found = self._connection.execute(
            "SELECT sha, any_value(text) FROM texts GROUP BY sha ORDER BY sha"
        )
        while rows := found.fetchmany(count):
            yield [text for _, text in rows], [bytes(sha) for sha, _ in rows]

    def _encoded(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The arrays of one file but the hashes; like lengths are encoded together."""
        order = sorted(range(len(texts)), key=lambda n: (len(texts[n]), n))
        batch = max(_TOKENS // self.encoder.tokens, 1)
        sequences: list[Any] = [None] * len(texts)
        masks = np.zeros((len(texts), self.encoder.tokens), bool)
        pooled = torch.empty((len(texts), self.encoder.pooled_width), dtype=self.files_dtype)
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            features = self._probe([texts[n] for n in some])
            sequence, mask = features.sequence.cpu(), features.mask.cpu() > 0
            for place, n in enumerate(some):
                sequences[n] = sequence[place, mask[place]]
                masks[n, : mask.shape[1]] = mask[place].numpy()
            if features.pooled is not None:
                pooled[some] = features.pooled.cpu()
        arrays = {
            "sequence": torch.cat(sequences),
            "ends": torch.tensor(np.cumsum(masks.sum(1)), dtype=torch.int64),
            "mask": torch.from_numpy(np.packbits(masks, axis=1)),
        }
        return arrays | ({"pooled": pooled} if self.encoder.pooled_width else {})

    def close(self) -> None:
        """Remove what was sorted."""
        if self._connection is not None:
            self._connection.close()
        shutil.rmtree(self._scratch, ignore_errors=True)
