"""A small synthetic web and a dataset curated from it with the shipped weights, made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from curate.store.dataset import Dataset
from pipelines.demo.demo import curate_settings, recaption_settings
from pipelines.demo.settings import DemoSettings
from pipelines.runners import choice
from pipelines.runners.local import Local
from pipelines.world.scene import WorldConfig
from pipelines.world.serve import serve
from pipelines.world.web import build_web
from tests.ports import free_port

ROWS = 240


@dataclass(frozen=True)
class SmallWeb:
    """A built web, its port and the settings that curate it."""

    directory: Path
    port: int
    settings: DemoSettings

    @property
    def urls(self) -> Path:
        return self.directory / "urls.parquet"

    @property
    def truth(self) -> Path:
        return self.directory / "truth.parquet"


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """Local runners work in this process, for tests in which it is the same who does a task.

    A worker's start, which imports torch, costs more than all that such a test gives it to do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "Local", partial(Local, processes=False))
        yield


@pytest.fixture(scope="session")
def small_web(tmp_path_factory) -> SmallWeb:
    directory = tmp_path_factory.mktemp("web")
    port = free_port()
    build_web(directory, WorldConfig.small(), ROWS, 3, f"http://127.0.0.1:{port}")
    settings = DemoSettings(rows=ROWS, rows_per_shard=80, port=port, workers=1, runner="local")
    return SmallWeb(directory, port, settings)


@pytest.fixture(scope="session")
def curated(small_web, tmp_path_factory) -> Dataset:
    """The web, curated and recaptioned by the shipped models through real HTTP."""
    from pipelines.commands.curate import curate
    from pipelines.commands.recaption import recaption

    out = tmp_path_factory.mktemp("dataset") / "data"
    with serve(small_web.directory, small_web.port):
        curate(small_web.urls, out, curate_settings(small_web.settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "Local", partial(Local, processes=False))
        recaption(out, recaption_settings(small_web.settings))
    return Dataset.open(out)
