"""`judge: real`: generated pictures beside as many real ones.

Every value stands beside its floor, what a second, disjoint set of as many real pictures gets. All
of these metrics change with N, so values of different N do not compare, and a difference of two
values counts against their floor and their spread over seeds, not against zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.settings import Settings
from curate.base.weight_download import cache_directory
from pipelines.judges.protocol import Pictures, SetJudge
from pipelines.judges.real import distances
from pipelines.judges.real.features import MODELS, FeatureModel
from pipelines.judges.real.reference import Reference
from pipelines.judges.real.settings import RealOptions, parse_metric

if TYPE_CHECKING:
    import pyarrow as pa

Features = NDArray[np.float32]

FRECHET = ("fid", "fd_dinov2")
NEAR = frozenset({"precision", "recall", "density", "coverage"})
LEAST = distances.NEIGHBOURS + 2
"""Pictures of a set, below which no metric is computed."""


class RealJudge(SetJudge):
    """Distances to real pictures, and diversity; see docs/judges-real.md."""

    Options: ClassVar[type[Settings]] = RealOptions
    options: RealOptions

    def __init__(self, options: Settings, device: str) -> None:
        super().__init__(options, device)
        assert isinstance(options, RealOptions)
        self.options = options
        self.metrics = tuple(options.metrics)
        self.reference: Reference | None = None
        if options.reference is not None:
            self.reference = Reference(options.reference, options.selection, options.seed)
            self.reference.check(options.pictures or LEAST)
        networks = dict.fromkeys(parse_metric(name)[1] for name in self.metrics)
        self.models: dict[str, FeatureModel] = {
            name: MODELS[name](options, device) for name in networks
        }
        self.limits = tuple(self._limits())
        self.keep = options.keep
        self._real: dict[tuple[str, int, int], tuple[Features, Features]] = {}

    def identity(self) -> dict[str, Any]:
        """What the networks are, and which real pictures there are to draw from."""
        marks = {name: dict(model.mark) for name, model in self.models.items()}
        return {"models": marks, "reference": self.reference.mark if self.reference else None}

    def used(self, count: int) -> int:
        """N, of each set."""
        wanted = self.options.pictures or LEAST
        if count < wanted:
            raise ConfigError(
                f"A set has {count} pictures; the judge real needs {wanted}: ask for more "
                f"prompts or noises, or for fewer `pictures`."
            )
        return min(count, self.options.pictures or count)

    def attempt(self, pictures: Pictures, asked: pa.Table) -> None:
        """The networks alone; that the reference is large enough was seen when it was made."""
        for model in self.models.values():
            model(pictures[:LEAST])

    def score_set(self, pictures: Pictures, asked: pa.Table) -> dict[str, tuple[float, float]]:
        """Metric -> (value, floor); the floor is NaN where there is no reference.

        Memory: N x D features of the set and of two real ones, a network.

        Raises:
            ConfigError: the set, or the reference, has too few pictures.
        """
        count = self.used(len(pictures))
        if count < len(pictures):
            rng = np.random.default_rng(self.options.seed)
            pictures = pictures[np.sort(rng.permutation(len(pictures))[:count])]
        found: dict[str, tuple[float, float]] = {}
        for network, model in self.models.items():
            mine = {
                name: metric
                for name in self.metrics
                for metric, used in [parse_metric(name)]
                if used == network
            }
            x, (y, other) = model(pictures), self._reference_of(network, pictures)
            values = compare(set(mine.values()), x, y, self.options.seed)
            floors = compare(set(mine.values()), other, y, self.options.seed)
            found |= {name: (values[metric], floors[metric]) for name, metric in mine.items()}
        return {name: found[name] for name in self.metrics}

    def _reference_of(self, network: str, pictures: Pictures) -> tuple[Features, Features]:
        empty = np.empty((0, self.models[network].width), np.float32)
        if self.reference is None:
            return empty, empty
        size = (network, len(pictures), pictures.shape[1])
        if size not in self._real:
            keep = self.keep or cache_directory() / "reference-features"
            self._real = {known: self._real[known] for known in self._real if known[0] != network}
            self._real[size] = self.reference.features(self.models[network], *size[1:], keep)
        return self._real[size]

    def _limits(self) -> Iterator[str]:
        count = self.options.pictures
        if self.reference is not None:
            yield (
                "Distances to real pictures depend on how many are compared: a value stands beside "
                "its floor, two real sets of that size, and only equal numbers compare."
            )
        for name in self.metrics:
            metric, network = parse_metric(name)
            width = self.models[network].width
            if metric in FRECHET and (count is None or count <= width):
                these = f"{count:,}" if count else f"At most {width:,}"
                yield (
                    f"{name}: {these} pictures are too few for a covariance of {width:,} features; "
                    f"most of the value is then bias, which its floor shows. Prefer mind or kid."
                )
        for model in self.models.values():
            yield from model.limits


def compare(wanted: Collection[str], x: Features, y: Features, seed: int) -> dict[str, float]:
    """Metrics of generated features x beside real y, (N, D) each; NaN where y is empty."""
    found = dict.fromkeys(wanted, float("nan"))
    if "vendi" in wanted and len(x):
        found["vendi"] = distances.vendi(x)
    if not len(y):
        return found
    if NEAR & set(wanted):
        found |= {name: v for name, v in distances.neighbourhoods(x, y).items() if name in wanted}
    if "mind" in wanted:
        along = distances.directions(x.shape[1], seed=seed)
        found["mind"] = distances.mind(x, y, along)
    pairwise = {"kid": distances.kernel_distance, "cmmd": distances.cmmd}
    for name, distance in {**pairwise, **dict.fromkeys(FRECHET, distances.frechet)}.items():
        if name in wanted:
            found[name] = distance(x, y)
    return found
