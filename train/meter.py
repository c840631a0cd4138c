"""How fast a run is, and where its metrics go: clocks, the machine's own rate, trackers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from curate.base.errors import ConfigError

if TYPE_CHECKING:
    from train.settings import TrainSettings

# Dense bf16 TFLOP/s from the makers' datasheets, by a part of the device's name.
DATASHEET = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A10G": 70.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
    "MI300X": 1307.0,
}


class Clock:
    """Wall clock and this process's CPU seconds of training alone: it stands still meanwhile."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self.saved = self._wall
        """When the last checkpoint was written, as `time.perf_counter`."""

    def lap(self) -> tuple[float, float]:
        """Wall and CPU seconds since the last lap."""
        wall, cpu = time.perf_counter(), time.process_time()
        took = wall - self._wall, cpu - self._cpu
        self._wall, self._cpu = wall, cpu
        return took

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Looking at the model is not training it."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self._wall += time.perf_counter() - wall
        self._cpu += time.process_time() - cpu


@dataclass(frozen=True)
class Rate:
    """What a device does and a model asks for."""

    flops_per_picture: float
    """Of the backbone, forward and backward."""
    matmul: float
    """FLOP/s of a large square matrix product on this device, in what the model computes in."""
    datasheet: float | None
    """FLOP/s that the maker names; None where the device is not in the table."""

    def row(self, pictures_per_second: float, devices: int) -> dict[str, float | None]:
        """teraflops and mfu (of what was measured) a device, mfu_datasheet, at a training speed."""
        flops = pictures_per_second * self.flops_per_picture / devices
        return {
            "teraflops": flops / 1e12,
            "mfu": flops / self.matmul,
            "mfu_datasheet": flops / self.datasheet if self.datasheet else None,
        }


def datasheet_rate(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s by the datasheet, where the device's name is known and the dtype is bf16 or fp16."""
    if device.type != "cuda" or dtype == torch.float32:
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate * 1e12 for part, rate in DATASHEET.items() if part in name), None)


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product, the best of a few: 20 ms on a CPU, less on a GPU."""
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn((size, size), device=device).to(dtype) for _ in range(2))
    product, best = torch.empty_like(a), float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        torch.mm(a, b, out=product)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


class Tracker(Protocol):
    """Takes numbers as a run goes on."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Names and values after `step` steps."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """Event files in OUT/tensorboard."""

    def __init__(self, out: Path, settings: TrainSettings) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(out / "tensorboard"))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run on wandb, named as the directory; WANDB_PROJECT and WANDB_MODE are wandb's own."""

    def __init__(self, out: Path, settings: TrainSettings) -> None:
        import wandb

        name, config = out.name, settings.resolved()
        try:
            self._run = wandb.init(name=name, id=name, resume="allow", dir=str(out), config=config)
        except wandb.Error as error:
            raise ConfigError(f"trackers = 'wandb' cannot begin: {error}") from error

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


_TRACKERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def refuse_missing_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError where a tracker's package is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(f"trackers = {name!r} needs the package {name}: pip install {name}.")


def open_trackers(out: Path, settings: TrainSettings) -> list[Tracker]:
    """The trackers that the settings ask for."""
    return [_TRACKERS[name](out, settings) for name in settings.trackers]
