"""A scorer of your own: typed columns, a version, and a function of a batch.

    class Reading(OwnScorer):
        name, version = "reading", 1
        needs = ("alt_text",)
        types: ClassVar = {"reading_seconds": pa.float32()}

        def score(self, columns):
            return {"reading_seconds": [len(text or "") / 15 for text in columns["alt_text"]]}

`caplab score DATASET --scorers my_module:Reading` adds the columns, and `reading_error`: a row at
which `score` fails has nulls, and there the reason. What `score` is given, and what may be needed,
stands in curate.scoring.scorers.scorer; an entry point of the group `caption_lab.scorers` gives it
a short name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import pyarrow as pa

from curate.base.errors import CaplabError, ConfigError
from curate.base.registry import said, tried
from curate.scoring.scorers.scorer import OF_OTHERS, TAKEN, Column, Columns, Scorer

if TYPE_CHECKING:
    from curate.pictures.decode import PictureView

Given = TypeVar("Given")


class OwnScorer(Scorer):
    """Base of a scorer that is not ours; made without arguments, sent to workers by pickle.

    `name` and the columns of `types` are words of lower-case letters, digits and underscores.
    Whoever changes what `score` gives raises `version`: stored columns are then computed again.
    """

    version: ClassVar[int | str]
    types: ClassVar[Mapping[str, pa.DataType]]

    def signature(self) -> dict[str, Any]:
        """The version; a scorer with weights or settings adds their hashes."""
        return {"version": self.version}

    @abstractmethod
    def score(self, columns: Mapping[str, Column]) -> Columns:
        """The columns of `types` for one batch: a list, a NumPy or an Arrow array each."""


class GuardedScorer(Scorer):
    """Somebody's scorer between our columns: checked before a run, its failing rows told apart."""

    def __init__(self, own: OwnScorer) -> None:
        self.own = own
        self.name, self.needs = own.name, tuple(own.needs)
        self.error = f"{own.name}_error"
        self.adds = (*own.types, self.error)

    def signature(self) -> dict[str, Any]:
        types = {name: str(kind) for name, kind in self.own.types.items()}
        return {"own": self.own.signature(), "types": types}

    def open(self) -> None:
        error = tried(self.own.open)
        if isinstance(error, Exception):
            raise ConfigError(f"The scorer {self.name!r} does not open ({said(error)}).") from error

    def views(self) -> Mapping[str, PictureView]:
        return self.own.views()

    def hashes(self) -> Mapping[str, str]:
        return self.own.hashes()

    def score(self, columns: Mapping[str, Column]) -> Columns:
        count = len(next(iter(columns.values())))
        given = tried(lambda: self._typed(columns, count))
        if not isinstance(given, Exception):
            return {**given, self.error: pa.nulls(count, pa.string())}
        if count == 1:  # the row's failure, stored with its reason
            nulls = {name: pa.nulls(1, kind) for name, kind in self.own.types.items()}
            return {**nulls, self.error: pa.array([said(given)], pa.string())}
        rows = [
            self.score({name: column[row : row + 1] for name, column in columns.items()})
            for row in range(count)
        ]
        return {name: pa.concat_arrays([row[name] for row in rows]) for name in self.adds}

    def _typed(self, columns: Mapping[str, Column], count: int) -> dict[str, pa.Array]:
        given = self.own.score(columns)
        typed = {name: _as(given[name], kind) for name, kind in self.own.types.items()}
        if any(len(column) != count for column in typed.values()):
            lengths = {name: len(column) for name, column in typed.items()}
            raise ValueError(f"it gave columns of other lengths than {count}: {lengths}")
        return typed


def checked(found: object, name: str) -> GuardedScorer:
    """The scorer of a class that an entry point's name or `module:Class` stands for.

    Raises:
        ConfigError: one sentence for whatever keeps it from being run.
    """
    if not (isinstance(found, type) and issubclass(found, OwnScorer)):
        raise ConfigError(
            f"The scorer {name!r} is no class that derives from "
            f"curate.scoring.scorers.own.OwnScorer."
        )
    problem = _undeclared(found)
    if problem:
        raise ConfigError(f"The scorer {name!r} {problem}.")
    own = tried(found)
    if isinstance(own, CaplabError):
        raise own
    if isinstance(own, Exception):
        raise ConfigError(f"The scorer {name!r} cannot be made ({said(own)}).") from own
    return GuardedScorer(own)


def _undeclared(found: type[OwnScorer]) -> str | None:
    """What is wrong with a scorer's declarations; None where nothing is."""
    for field in ("name", "version", "needs", "types"):
        if not hasattr(found, field):
            return f"does not say its {field}"
    if getattr(found.score, "__isabstractmethod__", False):
        return "has no method score"
    for word in (found.name, *found.types):
        if not (isinstance(word, str) and word.isidentifier() and word == word.lower()):
            return f"calls something {word!r}; use lower-case letters, digits and underscores"
        if word in TAKEN or word.startswith(OF_OTHERS):
            return f"adds {word!r}, which is the name of a column of every dataset"
    for column, kind in found.types.items():
        if not isinstance(kind, pa.DataType):
            return f"gives {column} the type {kind!r}; use a type of pyarrow, as pa.float32()"
    return None


def _as(column: Column, kind: pa.DataType) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.Array):
        return column.cast(kind)
    if isinstance(column, np.ndarray) and column.ndim > 1:
        column = list(column)
    return pa.array(column, kind, from_pandas=True)
