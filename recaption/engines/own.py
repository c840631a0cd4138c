"""A captioner of the user's own, guarded: its faults are data, or one sentence that names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.base.errors import CaplabError, ConfigError
from curate.base.registry import said, tried
from recaption.engines.attention import attend, narrowed
from recaption.engines.batches import consecutive
from recaption.engines.protocol import ENGINE_ERROR, CaptionEngine, CaptionOutcome, CaptionRequest


class GuardedCaptioner:
    """Asks a batch that raised again row by row, so that one bad row costs no other its caption."""

    def __init__(self, engine: CaptionEngine, place: str, batch_size: int) -> None:
        """`batch_size`: rows that it is asked for at a time."""
        self._engine, self._place, self._batch_size = engine, place, batch_size
        self.name, self.revision = engine.name, engine.revision

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """One outcome a row; where the engine raises for a row alone, its words are the detail.

        Raises:
            ConfigError: what it gives are no outcomes, or not one a row.
        """
        if len(request) > self._batch_size:
            return [
                outcome
                for rows in consecutive(range(len(request)), self._batch_size)
                for outcome in self._part(request, rows)
            ]
        attend(range(len(request)))
        given = tried(lambda: self._engine.caption(request))
        if isinstance(given, CaplabError):
            raise given
        if not isinstance(given, Exception):
            return self._checked(given, len(request))
        if len(request) == 1:
            return [CaptionOutcome(error=ENGINE_ERROR, detail=said(given))]
        return [outcome for row in range(len(request)) for outcome in self._part(request, [row])]

    def _part(self, request: CaptionRequest, rows: Sequence[int]) -> list[CaptionOutcome]:
        with narrowed(rows):
            return self.caption(request.part(rows))

    def _checked(self, given: Any, rows: int) -> list[CaptionOutcome]:
        outcomes = list(given) if isinstance(given, (list, tuple)) else []
        if len(outcomes) != rows or not all(isinstance(one, CaptionOutcome) for one in outcomes):
            raise ConfigError(
                f"The captioner {self._place} must give a list of {rows} CaptionOutcome for {rows} "
                f"rows; it gave {said(given)}."
            )
        return outcomes
