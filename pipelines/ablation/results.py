"""What a study's pictures and sets say of an arm at a place: a form, a wording, a group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.errors import DatasetError
from pipelines.ablation.schemas import DESCRIBING, metric_names
from pipelines.statistics.interval import Bounds, Estimate, Floats, paired, unpaired

ALL = "all"
"""The wording that pools wordings, and the group of all prompts."""


class Place(NamedTuple):
    """Which prompts: `group` is "all", "seen", "held_out" or "category:NAME"."""

    form: str
    wording: str = ALL
    group: str = ALL


@dataclass(frozen=True)
class Values:
    """A metric of an arm at a place.

    Attributes:
        seeds: `(S,)` training seeds, ascending.
        matrix: `(S, P)`, noises averaged; NaN = undefined. Of a set's metric, P is 1.
        intents: `(P,)` the clusters.
        prompts: how many, 0 of a set's metric.
    """

    seeds: tuple[int, ...]
    matrix: Floats
    intents: NDArray[np.str_]
    prompts: int

    def of(self, seeds: tuple[int, ...]) -> Floats:
        """The rows of these seeds."""
        return self.matrix[[self.seeds.index(seed) for seed in seeds]]


@dataclass(frozen=True)
class Results:
    """images.parquet and sets.parquet, by arm, place and metric."""

    images: pa.Table
    sets: pa.Table

    @cached_property
    def arms(self) -> list[str]:
        """In the order of the tables."""
        named = [*self.images["arm"].to_pylist(), *self.sets["arm"].to_pylist()]
        return list(dict.fromkeys(named))

    @cached_property
    def metrics(self) -> list[str]:
        """Of single pictures, then of sets."""
        return [*self._picture_metrics, *self.set_metrics]

    @cached_property
    def set_metrics(self) -> list[str]:
        """Metrics of whole sets."""
        return list(dict.fromkeys(self.sets["metric"].to_pylist()))

    @cached_property
    def places(self) -> list[Place]:
        """Forms in the tables' order, in each "all" and then each wording, with their groups."""
        found = list(self._masks)
        for form, wording in zip(
            self.sets["form"].to_pylist(), self.sets["wording"].to_pylist(), strict=True
        ):
            found.append(Place(form, wording))
        return list(dict.fromkeys(found))

    def values(self, arm: str, place: Place, metric: str) -> Values | None:
        """None where the metric has no value there, or none for some seed of the arm."""
        found = (
            self._of_pictures(arm, place, metric)
            if metric in self._picture_metrics
            else self._of_sets(arm, place, metric)
        )
        if found is None or np.isnan(found.matrix).all(1).any():
            return None
        return found

    def _of_pictures(self, arm: str, place: Place, metric: str) -> Values | None:
        mask = self._masks.get(place)
        if mask is None or arm not in self._cubes:
            return None
        seeds, cube = self._cubes[arm]
        matrix = cube[:, mask, self._picture_metrics.index(metric)]
        return Values(seeds, matrix, self._prompts["intent_id"][mask], int(mask.sum()))

    def _of_sets(self, arm: str, place: Place, metric: str) -> Values | None:
        rows = self._set_rows.get((arm, place, metric))
        if rows is None:
            return None
        seeds = tuple(sorted(rows))
        values = np.array([[rows[seed]] for seed in seeds], dtype=np.float64)
        return Values(seeds, values, np.array(["set"]), 0)

    @cached_property
    def _picture_metrics(self) -> list[str]:
        return metric_names(self.images.column_names)

    @cached_property
    def _set_rows(self) -> dict[tuple[str, Place, str], dict[int, float]]:
        rows: dict[tuple[str, Place, str], dict[int, float]] = {}
        for row in self.sets.to_pylist():
            place = Place(row["form"], row["wording"])
            rows.setdefault((row["arm"], place, row["metric"]), {})[row["seed"]] = row["value"]
        return rows

    @cached_property
    def _prompts(self) -> dict[str, NDArray[np.str_]]:
        """Distinct prompts by id, in the order of the table; columns of one length."""
        ids = self._column("prompt_id")
        _, first = np.unique(ids, return_index=True)
        first = np.sort(first)
        names = ("prompt_id", "form", "wording", "intent_id", "category", "held_out")
        return {name: self._column(name)[first] for name in names}

    def _column(self, name: str) -> NDArray[np.str_]:
        column = self.images[name].cast(pa.string()).fill_null("")
        return np.asarray(column.to_pylist(), dtype=np.str_)

    @cached_property
    def _cubes(self) -> dict[str, tuple[tuple[int, ...], Floats]]:
        """Arm -> its seeds and `(S, P, M)` means over noises."""
        arms, ids = self._column("arm"), self._column("prompt_id")
        seeds = self.images["seed"].to_numpy()
        order = {prompt: place for place, prompt in enumerate(self._prompts["prompt_id"])}
        prompt = np.array([order[one] for one in ids], dtype=np.int64)
        columns = [
            np.asarray(self.images[name].to_numpy(zero_copy_only=False), dtype=np.float64)
            for name in self._picture_metrics
        ]
        table = np.stack(columns, 1) if columns else np.empty((len(ids), 0))
        cubes = {}
        for arm in dict.fromkeys(arms.tolist()):
            rows = np.flatnonzero(arms == arm)
            own, seed = np.unique(seeds[rows], return_inverse=True)
            size = len(own) * len(order)
            cell = seed * len(order) + prompt[rows]
            means = np.full((size, table.shape[1]), np.nan)
            for metric in range(table.shape[1]):
                value = table[rows, metric]
                known = ~np.isnan(value)
                counts = np.bincount(cell[known], minlength=size)
                sums = np.bincount(cell[known], weights=value[known], minlength=size)
                means[counts > 0, metric] = sums[counts > 0] / counts[counts > 0]
            shape = (len(own), len(order), table.shape[1])
            cubes[arm] = (tuple(int(one) for one in own), means.reshape(shape))
        return cubes

    @cached_property
    def _masks(self) -> dict[Place, NDArray[np.bool_]]:
        return dict(self._places_of_prompts())

    def _places_of_prompts(self) -> Iterator[tuple[Place, NDArray[np.bool_]]]:
        prompts = self._prompts
        for form in dict.fromkeys(prompts["form"].tolist()):
            of_form = prompts["form"] == form
            wordings = list(dict.fromkeys(prompts["wording"][of_form].tolist()))
            for wording in (ALL, *(name for name in wordings if name != ALL)):
                mask = of_form if wording == ALL else of_form & (prompts["wording"] == wording)
                yield Place(form, wording), mask
                held_out = prompts["held_out"] == "true"
                parts = {"seen": mask & ~held_out, "held_out": mask & held_out}
                if wording == ALL:
                    kinds = dict.fromkeys(prompts["category"][mask].tolist())
                    if len(kinds) > 1:
                        for kind in kinds:
                            parts[f"category:{kind}"] = mask & (prompts["category"] == kind)
                if not parts["held_out"].any() or not parts["seen"].any():
                    del parts["seen"], parts["held_out"]
                for group, part in parts.items():
                    yield Place(form, wording, group), part


def difference(a: Values, b: Values, bounds: Bounds) -> tuple[Estimate, bool]:
    """a - b at one place, and whether by the seeds that both have.

    Arms that share two seeds or more, or all that they have, are paired by those; arms of other
    seeds are compared as independent samples (an A/A arm).
    """
    shared = tuple(seed for seed in a.seeds if seed in b.seeds)
    if len(shared) > 1 or (shared and a.seeds == b.seeds):
        return paired(a.of(shared), b.of(shared), a.intents, bounds), True
    return unpaired(a.matrix, b.matrix, a.intents, bounds), False


def read(images: pa.Table, sets: pa.Table) -> Results:
    """The results of a study.

    Raises:
        DatasetError: a column is missing.
    """
    lacking = [name for name in DESCRIBING.names if name not in images.column_names]
    if lacking:
        raise DatasetError(f"images.parquet has no column {lacking[0]!r}.")
    return Results(images, sets)
