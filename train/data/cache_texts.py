"""Writing features of all captions of an index; see `train.data.cache`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from curate.base.progress import progress
from train.data.cache_files import CacheFiles, CachePart
from train.data.cached import CachedText, captions_of, text_identity
from train.data.index import TrainingIndex
from train.data.sorting import insert
from train.protocols import TextFeatures, Tokens
from train.text.joined import JoinedText

if TYPE_CHECKING:
    import duckdb

_TOKENS = 1 << 14  # of a batch on the device
_PROBED, _TEXTS_AT_A_TIME = 16, 50_000
_HASH_BYTES = 32


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
        sorter: duckdb.DuckDBPyConnection,
    ) -> None:
        """
        Args:
            encoder: a TextEncoder, which is an nn.Module.
            sorter: an empty database, for the captions that are missing.
        """
        self.index, self.held_out, self.sorter = index, held_out, sorter
        self.encoder, self.device = encoder.to(device), device
        self.dtype = self._features([""]).sequence.dtype
        self.files = CacheFiles.begin(
            parent,
            "text",
            text_identity(encoder),
            precision=str(self.dtype).removeprefix("torch."),
            tokens=encoder.tokens,
            width=encoder.width,
            pooled_width=encoder.pooled_width,
            file_bytes=file_bytes,
            covers=[],
        )
        self._missing = 0

    def look(self, verify: bool, say: Callable[[str], None]) -> CachePart:
        """What is missing; forgets what is damaged. Runs the encoder on a few captions."""
        if self.files.forget_damaged(verify, say):
            self.files.manifest["covers"] = []
            if verify:
                self.files.save()
        total = self._gather()
        ((self._missing,),) = self.sorter.execute(
            "SELECT count(DISTINCT sha) FROM texts"
        ).fetchall()
        some = self.sorter.execute(
            f"SELECT text FROM texts USING SAMPLE reservoir({_PROBED} ROWS) REPEATABLE (0)"
        ).fetchall()
        needs = 0
        if some:
            features = self._features([text for (text,) in some])
            real = float(features.mask.float().sum() / len(some))
            numbers = real * self.encoder.width + self.encoder.pooled_width
            own = self.dtype.itemsize * numbers + _HASH_BYTES + 8 + -(-self.encoder.tokens // 8)
            needs = int(self._missing * own)
        return CachePart("text", self.files.folder, total, self._missing, needs)

    def _features(self, texts: Sequence[str]) -> TextFeatures:
        tokens: Tokens = self.encoder.tokenize(texts)
        if isinstance(self.encoder, JoinedText):
            tokens = self.encoder.without_padding(tokens)
        with torch.no_grad():
            features: TextFeatures = self.encoder({n: t.to(self.device) for n, t in tokens.items()})
        return features

    def _gather(self) -> int:
        """Put captions that are not in the cache into `texts`; how many captions there are."""
        self.sorter.execute("CREATE TABLE texts (sha BLOB, text VARCHAR)")
        known, total = CachedText(self.files), 0
        every = chain([""], self.index.texts(), self.held_out.texts())
        while texts := list(islice(every, _TEXTS_AT_A_TIME)):
            total += len(texts)
            digests = {hashlib.sha256(text.encode()).digest(): text for text in texts}
            new = {sha: text for sha, text in digests.items() if known.find(sha) is None}
            columns = {"sha": list(new), "text": list(new.values())}
            if new:
                insert(self.sorter, "texts", "SELECT sha, text FROM new", columns)
        return total

    def write(self) -> None:
        """Encode what is missing, in files behind those that are there."""
        row_bytes = self.encoder.tokens * self.encoder.width * self.dtype.itemsize
        count = max(self.files.manifest["file_bytes"] // row_bytes, 1)
        first = max(map(int, self.files.notes), default=-1) + 1
        with progress(self._missing, "text features") as bar:
            for number, (hashes, texts) in enumerate(self._sorted(count), first):
                tensors = self._encoded(texts)
                joined = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, _HASH_BYTES)
                tensors["hashes"] = torch.from_numpy(joined.copy())
                ends = {"first": hashes[0].hex(), "last": hashes[-1].hex()}
                self.files.write(f"{number:05d}", tensors, **ends)
                bar.update(len(texts))
        covers = {*self.files.manifest["covers"], captions_of(self.index, self.held_out)}
        self.files.manifest["covers"] = sorted(covers)
        self.files.save()

    def _sorted(self, count: int) -> Iterator[tuple[list[bytes], list[str]]]:
        """So many captions at a time, in the order of their hashes, each once."""
        found = self.sorter.execute(
            "SELECT sha, any_value(text) FROM texts GROUP BY sha ORDER BY sha"
        )
        while rows := found.fetchmany(count):
            yield [bytes(sha) for sha, _ in rows], [text for _, text in rows]

    def _encoded(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The tensors of one file but the hashes; like lengths are encoded together."""
        order = sorted(range(len(texts)), key=lambda n: (len(texts[n]), n))
        sequences: list[Any] = [None] * len(texts)
        masks = np.zeros((len(texts), self.encoder.tokens), bool)
        pooled = torch.empty((len(texts), self.encoder.pooled_width), dtype=self.dtype)
        batch = max(_TOKENS // self.encoder.tokens, 1)
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            features = self._features([texts[n] for n in some])
            sequence, mask = features.sequence.cpu(), features.mask.cpu() > 0
            for place, n in enumerate(some):
                sequences[n] = sequence[place, mask[place]]
                masks[n, : mask.shape[1]] = mask[place].numpy()
            if features.pooled is not None:
                pooled[some] = features.pooled.cpu()
        return {
            "sequence": torch.cat(sequences),
            "ends": torch.tensor(np.cumsum(masks.sum(1)), dtype=torch.int64),
            "mask": torch.from_numpy(np.packbits(masks, axis=1)),
            "pooled": pooled,
        }
