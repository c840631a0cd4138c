"""`caplab train --precompute`: write the caches that `train.data.cached` reads, each array once.

Killed at any moment, the same command goes on with the arrays that are whole, and what comes out
equals an unbroken run byte for byte: rows and texts are cut into the same files and batches.
A picture that does not decode is counted and its place filled with zeros; a run that would need it
is refused by its key before a step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from curate.base.errors import ConfigError
from curate.base.settings import device_of, dtype_of
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.store.lock import writing
from train.data.cache_files import CachePart
from train.data.cache_rows import RowsWriter
from train.data.cache_texts import TextsWriter
from train.data.cached import NO_FLIPS, why_no_text
from train.data.index import build_index, index_folder
from train.data.pictures import Tars
from train.data.sorting import sorter
from train.latents import build_latents
from train.model_settings import ModelConfig
from train.protocols import Latents
from train.settings import TrainSettings, model_config, seed_of
from train.text.build import build_text

if TYPE_CHECKING:
    from curate.store.dataset import Dataset

FILE_BYTES = 256 << 20


class Frozen(Protocol):
    """The frozen parts of a model: a whole TextToImage, or these two alone."""

    text: Any
    """A TextEncoder, which is an nn.Module."""
    latents: Latents


@dataclass(frozen=True)
class Precomputed(Summary):
    """What was, or with `dry_run` would be, written."""

    parts: tuple[CachePart, ...]
    remarks: tuple[str, ...] = ()

    def text(self) -> str:
        """For people."""
        return "\n".join([*(part.line() for part in self.parts), *self.remarks])


def precompute(
    dataset: Dataset,
    settings: TrainSettings,
    config: ModelConfig,
    model: Frozen,
    selection: str,
    caption_sources: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
    keys: Sequence[str] | None = None,
    dry_run: bool = False,
    file_bytes: int = FILE_BYTES,
) -> Precomputed:
    """Write what a run of these settings reads: pictures or latents, and text features.

    What lies there already is read again and held against its hashes; what is damaged is made
    anew. Captions are those of every kind in the index, and the empty one.

    Args:
        dry_run: only count and say; text features are estimated from some captions.
        file_bytes: of a new cache's files, about; an array is made in memory before it is written.

    Raises:
        ConfigError: settings that no cache can serve, or a disk without room.
        DatasetError: as `build_index`, or a tar is missing.
    """
    latents = None if config.latents.kind == "pixels" else model.latents
    if settings.crop == "random":
        raise ConfigError(
            "crop = random cannot be combined with --precompute: a cached crop would be the same "
            "in every epoch; take center, or train without --precompute."
        )
    if settings.flip and latents is not None:
        raise ConfigError(NO_FLIPS)
    index, held_out = build_index(dataset, settings, config, selection, caption_sources, keys)
    folder = index_folder(dataset, settings)
    device = torch.device(device_of(settings.device))
    dtype = dtype_of(config.latents.precision)
    remark = why_no_text(settings, model.text)
    remarks = [remark] if remark else []
    # One at a time, whatever it writes; and what dead ones left half-written goes.
    with nullcontext() if dry_run else writing(folder, "precompute"), sorter(folder) as captions:
        rows = RowsWriter(folder, index, held_out, latents, dtype, file_bytes)
        parts, texts = [rows.look(not dry_run, say)], None
        if not remark:
            indexes = (index, held_out)
            texts = TextsWriter(folder, *indexes, model.text, device, file_bytes, captions)
            parts.append(texts.look(not dry_run, say))
        _refuse_full_disk(folder, sum(part.needs for part in parts))
        if not dry_run:

            def tars() -> Tars:
                return Tars(dataset, folder, settings.shards_from)

            if broken := rows.write(tars, device, max(settings.loader_workers, 1)):
                remarks.append(
                    f"{amount(broken, 'picture does', 'pictures do')} not decode; a run is refused "
                    f"until that is repaired (`caplab check`) or not selected."
                )
            if texts is not None:
                texts.write()
    return Precomputed(tuple(parts), tuple(remarks))


def precompute_named(
    dataset: Dataset,
    settings: TrainSettings,
    selection: str,
    caption_sources: Mapping[str, str] | None = None,
    keys: Sequence[str] | None = None,
    say: Callable[[str], None] = print,
    dry_run: bool = False,
) -> Precomputed:
    """`precompute` with the frozen parts of the model that `settings` name, its network left out.

    A study calls it once for every (selection, caption_sources, keys) of its arms, before its
    runs; what is there already is only verified.
    """
    config = model_config(settings)
    chosen = (dataset, settings, config)
    both = build_index(*chosen, selection, caption_sources, keys)
    texts = chain.from_iterable(own.texts() for own in both)
    text = build_text(config, texts, None, seed_of(settings, "weights"))
    frozen = SimpleNamespace(text=text, latents=build_latents(config))
    return precompute(
        *chosen, frozen, selection, caption_sources, say=say, keys=keys, dry_run=dry_run
    )


def _refuse_full_disk(folder: Path, needs: int) -> None:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needs > free:
        raise ConfigError(
            f"The caches need about {needs / 1e9:,.1f} GB and {folder} has {free / 1e9:,.1f} GB "
            f"free; make room, or name another folder with --cache."
        )
