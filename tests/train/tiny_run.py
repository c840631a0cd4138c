"""The smallest settings and a dataset for them, shared by the tests of train/."""

from pathlib import Path
from typing import Any

from curate.store.dataset import Dataset
from tests.train.data.small_dataset import make_dataset
from train.assemble import build_model
from train.checkpoints import Progress
from train.data.loader import open_data
from train.distributed import ALONE, Ranks
from train.loop import train_loop
from train.model import TextToImage, Trained
from train.settings import TrainSettings, model_config

CAPTIONS = ["a plain red green blue square", "everything is"]


def tiny(**changes: Any) -> TrainSettings:
    """Settings of a run of a second."""
    return TrainSettings(**{"model": "tiny-test", "threads": 1, "device": "cpu", **changes})


def small(folder: Path) -> Dataset:
    """40 pictures of 16 px, selection "all"."""
    return make_dataset(folder, count=40, sizes=((16, 16),))


def loop(
    dataset: Dataset,
    out: Path,
    stop_after: int | None = None,
    say: Any = print,
    on_step: Any = lambda done, total, pace: None,
    ranks: Ranks = ALONE,
    **changes: Any,
) -> tuple[Trained, Progress]:
    """The bare loop, without a run's directory around it."""
    settings = tiny(**changes)
    config = model_config(settings)

    def make() -> TextToImage:
        return build_model(config, settings, CAPTIONS)

    model = make()
    data = open_data(dataset, settings, config, model.text, "all")
    mark = repr(sorted(settings.identity().items()))
    return train_loop(
        model, make, data, settings, config, out, mark, ranks, stop_after, on_step, say
    )
