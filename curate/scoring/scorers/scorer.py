"""What a scorer is, and the graph that joins scorers: checked before a run, planned for each shard.

A batch is a dictionary of columns of equal length B. Inputs that the reader supplies:

    alt_text         list[str | None]              exactly as it came
    picture          (B, S, S, 3) uint8            main CLIP's view, see curate.pictures.decode
    picture_NAME     (B, S, S, 3) uint8            the view of the scorer that asks for it by name,
                     or list of (h, w, 3)          where that is whole
    canvas           (B, 128, 128, 3) uint8        see curate.pictures.decode
    grey             list of (h, w) uint8          see curate.pictures.decode
    size             (B, 2) int32                  width, height
    pixel_sha256     list[str | None]

Every other column is some scorer's. A scorer returns NumPy arrays of length B along the first axis
(a NaN, or a row of NaN, stands for null) or pyarrow arrays (with their own nulls).
"""

from __future__ import annotations

import graphlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.settings import nearest
from curate.store.contract import SAMPLES
from curate.store.sample_view import BYTES_PER_PIXEL

if TYPE_CHECKING:
    from curate.pictures.decode import PictureView
    from curate.scoring.settings import ScoreSettings

Model = TypeVar("Model")
Column = Any
"""A NumPy array, a pyarrow array or a list, of length B."""
Columns = dict[str, Column]

PICTURE_INPUTS = frozenset({"picture", "canvas", "grey", "size", "pixel_sha256"})
"""Inputs that cost a decode; their scores are null where the picture does not decode."""
INPUTS = PICTURE_INPUTS | {"alt_text"}
VIEW_PREFIX = "picture_"
"""Inputs of this prefix are further views of the picture, each asked for by one scorer."""


def is_picture_input(column: str) -> bool:
    """Whether the reader supplies `column` by decoding a picture."""
    return column in PICTURE_INPUTS or column.startswith(VIEW_PREFIX)


def is_input(column: str) -> bool:
    """Whether the reader supplies `column`."""
    return column in INPUTS or column.startswith(VIEW_PREFIX)


class Scorer(ABC):
    """A pure function of columns, with its weights. Travels by pickle before `open`.

    Two scorers of one class (two CLIP models, say) differ in `name` and in the names of their
    columns.
    """

    name: str
    needs: tuple[str, ...]
    adds: tuple[str, ...]
    late = False
    """Whether it is opened only for a shard that lacks its columns."""

    @classmethod
    def of(cls, settings: ScoreSettings) -> Sequence[Scorer]:
        """Those of this kind that the settings ask for. Default: one, made without arguments.

        Raises:
            ConfigError: a model, tag or file that does not exist; before anything is read.
        """
        return [cls()]

    @abstractmethod
    def signature(self) -> dict[str, Any]:
        """All that decides the values besides the needed columns: version, settings, hashes."""

    def open(self) -> None:
        """Load weights, once a worker. Default: nothing."""
        return

    def views(self) -> Mapping[str, PictureView]:
        """How its picture inputs are made, by name; asked after `open`. Default: it needs none."""
        return {}

    def hashes(self) -> Mapping[str, str]:
        """Name -> sha256 of every weights file, for the record. Default: it has none."""
        return {}

    @abstractmethod
    def score(self, columns: Mapping[str, Column]) -> Columns:
        """The added columns for one batch. Rows are independent of one another."""


class ModelScorer(Scorer, Generic[Model]):
    """A scorer with a model, which is loaded once a worker and does not travel."""

    _model: Model | None = None

    @abstractmethod
    def load(self) -> Model:
        """The model; ConfigError where its weights do not load."""

    def open(self) -> None:
        if self._model is None:
            self._model = self.load()

    @property
    def model(self) -> Model:
        """The model; loads it when needed."""
        self.open()
        assert self._model is not None
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}


TAKEN = frozenset({*SAMPLES.names, "decode_error", BYTES_PER_PIXEL})
"""Names of columns that every dataset has, and no scorer may add."""
OF_OTHERS = ("image_embedding", "text_embedding", "imported_")
"""How the names of columns begin that further CLIP models, or imported scores, have."""
_LABEL = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")


def check_label(label: str) -> None:
    """Raise ConfigError for a name that cannot be part of a column's name."""
    if not _LABEL.fullmatch(label):
        raise ConfigError(
            f"{label!r} cannot name a column; use lower-case letters, digits and underscores."
        )


def check_column(name: str) -> None:
    """Raise ConfigError for a name that no score of one's own can have."""
    check_label(name)
    if name in TAKEN or name.startswith(OF_OTHERS):
        raise ConfigError(f"{name!r} is the name of a column of every dataset; choose another.")


@dataclass(frozen=True)
class Plan:
    """What one shard needs: `run` in order, `load` from tables, `inputs` from the reader."""

    run: tuple[Scorer, ...]
    load: frozenset[str]
    inputs: frozenset[str]

    @property
    def decodes(self) -> bool:
        """Whether any picture has to be decoded."""
        return any(is_picture_input(name) for name in self.inputs)

    def views(self) -> dict[str, PictureView]:
        """Picture input -> how it is made, the main model's first; `run` must be open."""
        views = {name: view for scorer in self.run for name, view in scorer.views().items()}
        return dict(sorted(views.items(), key=lambda entry: entry[0] != "picture"))


class ScorerGraph:
    """Scorers joined by their columns.

    Raises:
        ConfigError: two scorers add one column, a needed column is nobody's, or needs run in a
            circle. All of it before anything is read.
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.producer: dict[str, Scorer] = {}
        names = [scorer.name for scorer in scorers]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"Two scorers are called {min(twice)!r}; give each its own name.")
        for scorer in scorers:
            for column in scorer.adds:
                if is_input(column) or column in self.producer:
                    owner = self.producer[column].name if column in self.producer else "the reader"
                    raise ConfigError(
                        f"Scorer {scorer.name!r} adds the column {column!r}, which {owner!r} "
                        f"already supplies."
                    )
                self.producer[column] = scorer
        self.scorers = _in_order(scorers, self.producer)
        self.signatures = self._signatures()

    def _signatures(self) -> dict[str, str]:
        """Column -> hash of its scorer's signature and of those of all columns that it rests on."""
        signatures: dict[str, str] = {}
        for scorer in self.scorers:
            rests_on = {name: signatures[name] for name in scorer.needs if name in signatures}
            mark = fingerprint([scorer.name, scorer.signature(), rests_on])
            signatures.update(dict.fromkeys(scorer.adds, mark))
        return signatures

    def rests_on_picture(self, column: str) -> bool:
        """Whether `column` is null where the picture does not decode."""
        if is_input(column):
            return is_picture_input(column)
        return any(self.rests_on_picture(need) for need in self.producer[column].needs)

    def resting_on(self, scorer: Scorer) -> set[str]:
        """The columns of a scorer, and all that are computed from them."""
        columns = set(scorer.adds)
        for other in self.scorers:
            if columns.intersection(other.needs):
                columns.update(other.adds)
        return columns

    def plan(self, stored: Mapping[str, str]) -> Plan:
        """What to run where `stored` (column -> signature) is already in the tables.

        A column is computed when it is missing or was made by other weights or settings, or when
        a computed column rests on it and it cannot be loaded.
        """
        fresh = {name for name, mark in self.signatures.items() if stored.get(name) == mark}
        run: list[Scorer] = []
        load: set[str] = set()
        inputs: set[str] = set()
        wanted = set(self.signatures) - fresh
        for scorer in reversed(self.scorers):
            if not wanted.intersection(scorer.adds):
                continue
            run.append(scorer)
            for need in scorer.needs:
                if is_input(need):
                    inputs.add(need)
                elif need in fresh:
                    load.add(need)
                else:
                    wanted.add(need)
        produced = {column for scorer in run for column in scorer.adds}
        return Plan(tuple(reversed(run)), frozenset(load - produced), frozenset(inputs))


def _in_order(scorers: Iterable[Scorer], producer: Mapping[str, Scorer]) -> list[Scorer]:
    by_name = {scorer.name: scorer for scorer in scorers}
    edges: dict[str, set[str]] = {}
    for scorer in by_name.values():
        edges[scorer.name] = set()
        for need in scorer.needs:
            if is_input(need):
                continue
            if need not in producer:
                valid = sorted(INPUTS | producer.keys())
                raise ConfigError(
                    f"Scorer {scorer.name!r} needs the column {need!r}, which nobody adds; "
                    f"{nearest(need, valid)}"
                )
            edges[scorer.name].add(producer[need].name)
    try:
        order = tuple(graphlib.TopologicalSorter(edges).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ConfigError(f"Scorers need one another in a circle: {circle}.") from error
    return [by_name[name] for name in order]
