"""Batches of a run: rows in order, their captions as drawn, their pictures as cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from curate.base.errors import CaplabError, ConfigError
from curate.store.caption_blend import fallback_order
from train.data.cached import CachedText, find_cache, why_no_text
from train.data.captions import CaptionDraws
from train.data.index import TrainingIndex, build_index, index_folder
from train.data.kept_texts import KeptText
from train.data.order import DataOrder
from train.data.pictures import Pictures, TarPictures, Tars
from train.model_settings import ModelConfig
from train.protocols import Batch, Latents, TextEncoder, TextFeatures, Tokens
from train.settings import TrainSettings, seed_of

if TYPE_CHECKING:
    from curate.store.dataset import Dataset


@dataclass
class TrainingData:
    """All that a run reads."""

    index: TrainingIndex
    held_out: TrainingIndex
    order: DataOrder
    draws: CaptionDraws
    pictures: Pictures
    held_out_pictures: Pictures
    text: TextEncoder | CachedText | KeptText
    workers: int = 0
    pin: bool = False
    """Whether tensors are put into page-locked memory, from which a GPU copies while computing."""

    def keeping_text(
        self, encoder: Any, settings: TrainSettings, device: torch.device
    ) -> TrainingData:
        """The same, with features in place of tokens where the encoder is frozen and they fit."""
        if isinstance(self.text, CachedText) or why_no_text(settings, encoder):
            return self
        kept = KeptText.of(encoder, self.index.texts(self.draws.kinds), device)
        return self if kept is None else replace(self, text=kept)

    def batches(
        self, start: int, stop: int, rank: int = 0, world: int = 1, parts: int = 1
    ) -> Iterator[list[Batch]]:
        """This rank's share of each step in [start, stop), in `parts` micro-batches.

        The rows of a step are cut into world * parts equal runs; rank r takes the r-th `parts` of
        them. With workers, steps are made ahead by so many processes, in the same order.

        Raises:
            ConfigError: the batch cannot be cut so.
            DatasetError: a picture is missing or damaged.
        """
        if self.order.batch_size % (world * parts):
            raise ConfigError(
                f"batch_size = {self.order.batch_size} cannot be shared by {world} processes in "
                f"{parts} parts each."
            )
        steps = _Steps(self, start, stop, rank, world, parts)
        if not self.workers:
            for number in range(len(steps)):
                step = steps[number]
                yield (step.pin_memory() if self.pin else step).checked()
            return
        loader = DataLoader(
            steps,
            batch_size=None,
            num_workers=self.workers,
            collate_fn=_as_it_is,
            pin_memory=self.pin,
            worker_init_fn=_single_thread,
            # What was opened here (index, tokenizers) is open there.
            multiprocessing_context="fork",
        )
        for step in loader:
            yield step.checked()

    def batch(self, step: int, first: int, count: int) -> Batch:
        """Rows [first, first + count) of a step."""
        rows, epochs = (part[first : first + count] for part in self.order.batch(step))
        drawn = self.draws.draw(rows, epochs)
        x, size_ids = self.pictures.read(rows, epochs)
        if isinstance(self.text, CachedText | KeptText):
            text: Tokens | TextFeatures = self.text.features(drawn.texts)
        else:
            text = self.text.tokenize(drawn.texts)
        return Batch(
            step=step,
            rows=rows,
            x=x,
            text=text,
            size_ids=size_ids,
            conditions=torch.from_numpy(self.draws.conditions(rows, epochs)),
            loss_weight=torch.from_numpy(self.index.loss_weights(rows)),
            drawn=drawn,
        )

    def validation(self) -> tuple[NDArray[np.uint8], dict[str, list[str]]]:
        """Held-out pictures (n, R, R, 3), and their first captions of every kind all of them have.

        A kind counts only so, so that all kinds are judged on the same pictures. Where no kind of
        a blend that falls back is whole, each picture's own of the largest share stand as "blend".
        """
        rows = np.arange(len(self.held_out))
        if not len(rows):
            side = self.held_out.buckets[0].width
            return np.empty((0, side, side, 3), np.uint8), {}
        pictures, _ = self.held_out_pictures.read(rows, np.zeros_like(rows))
        captions = {kind: self.held_out.captions(rows, kind) for kind in self.held_out.kinds}
        first = {k: [own[0][1] for own in lists] for k, lists in captions.items() if all(lists)}
        settings = self.draws.settings
        if settings.missing_captions == "fallback" and not first.keys() & set(self.draws.kinds):
            own = zip(*(captions[k] for k in fallback_order(settings.captions)), strict=True)
            first["blend"] = [next(lists[0][1] for lists in row if lists) for row in own]
        return pictures.numpy(), first


def open_data(
    dataset: Dataset,
    settings: TrainSettings,
    config: ModelConfig,
    text_encoder: TextEncoder,
    selection: str,
    caption_sources: Mapping[str, str] | None = None,
    keys: Sequence[str] | None = None,
    latents: Latents | None = None,
) -> TrainingData:
    """The data of a run, from its index, which is made where it is not there yet.

    What `caplab train --precompute` wrote for the same pictures and models is read from there.

    Args:
        latents: the model's; without them cached latents are not looked for.

    Raises:
        ConfigError, DatasetError: as `build_index` and `find_cache`.
    """
    index, held_out = build_index(dataset, settings, config, selection, caption_sources, keys)
    folder = index_folder(dataset, settings)
    tars = Tars(dataset, folder, settings.shards_from)
    space = latents if config.latents.kind != "pixels" else None
    known = space is not None or config.latents.kind == "pixels"
    found = find_cache(folder, index, held_out, settings, space, text_encoder, known)
    seed, batch_size = seed_of(settings, "data"), settings.batch_size
    return TrainingData(
        index=index,
        held_out=held_out,
        order=DataOrder(index.buckets, batch_size, seed, settings.shuffle_block, index.weights),
        draws=CaptionDraws(index, settings),
        pictures=found.pictures or TarPictures(tars, index, seed, settings.crop, settings.flip),
        held_out_pictures=found.held_out or TarPictures(tars, held_out),
        text=found.text or text_encoder,
        workers=settings.loader_workers,
        pin=torch.cuda.is_available(),
    )


@dataclass
class _Step:
    """One step of this rank, or what went wrong with it (a worker's error loses its sentence)."""

    batches: list[Batch]
    error: CaplabError | None = None

    def pin_memory(self) -> _Step:
        return _Step([_pinned(batch) for batch in self.batches], self.error)

    def checked(self) -> list[Batch]:
        if self.error is not None:
            raise self.error
        return self.batches


@dataclass
class _Steps(TorchDataset[_Step]):
    data: TrainingData
    start: int
    stop: int
    rank: int
    world: int
    parts: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, number: int) -> _Step:
        count = self.data.order.batch_size // (self.world * self.parts)
        first = self.rank * self.parts * count
        step = self.start + number
        try:
            return _Step(
                [self.data.batch(step, first + a * count, count) for a in range(self.parts)]
            )
        except CaplabError as error:
            return _Step([], error)


def _pinned(value: Any) -> Any:
    """A copy of a batch, features or tokens whose tensors lie in page-locked memory."""
    if isinstance(value, Tensor):
        return value.pin_memory()
    if isinstance(value, dict):
        return {name: _pinned(part) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{name: _pinned(part) for name, part in parts.items()})
    return value


def _as_it_is(step: Any) -> Any:
    return step


def _single_thread(_: int) -> None:
    import os

    # Tokenizers' own threads do not survive the fork.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
