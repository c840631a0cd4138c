"""Blocks of captions, and what becomes of one whose captioner died or hung.

A block that is lost in the middle of the engine's work is cut in two: the rows that the engine was
at, which a fresh worker asks for row by row, and the others. A row over which it is lost once more,
alone, fails with a reason of its own, and the run goes on. So a picture that kills costs two starts
of the captioner, whatever else was in its batch; a passing fault costs one and no row. One that is
lost while it is loaded has no picture to blame: the run ends when that repeats.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from curate.base.errors import StageError
from curate.base.progress import tell
from pipelines.runners.hand_out import BEAT_SECONDS
from pipelines.runners.pulse import Pulses
from pipelines.runners.told import Board
from recaption.captioning.stage import Lacking
from recaption.engines.protocol import ENGINE_DIED, ENGINE_STUCK

MOST_RESTARTS = 20
"""A captioner that is lost so often is no accident of some pictures."""
MOST_OPENINGS = 3
"""Times that a block's captioner may be lost while it is loaded."""
_SHOWN = 3


@dataclass(frozen=True)
class Block:
    """Some pictures of a shard, with the captions that each lacks; `name` is no other's."""

    name: str
    shard: str
    lacking: Lacking
    alone: bool = False
    """Whether its captions are asked for one by one."""

    def part(self, kind: str, keys: Collection[str]) -> tuple[Lacking, Lacking]:
        """The captions of one kind of some pictures, and all others."""
        own: Lacking = {}
        others: Lacking = {}
        for key, slots in self.lacking.items():
            for slot in slots:
                inside = slot[0] == kind and key in keys
                (own if inside else others).setdefault(key, []).append(slot)
        return own, others


class CaptionWatch:
    """The `Watch` of hand_out over blocks."""

    def __init__(
        self,
        folder: Path,
        stuck_after: float,
        give_up: Callable[[Block, str, str], int],
        board: Board,
    ) -> None:
        """
        Args:
            folder: where workers tell.
            stuck_after: seconds; see `Pulses`.
            give_up: stores captions as failed, with their reason and its words; how many.
            board: is told what is over.
        """
        self._pulses = Pulses(folder, stuck_after)
        self._give_up, self._board = give_up, board
        self._names = count(1)
        self.beat_seconds = min(BEAT_SECONDS, stuck_after / 2 or math.inf)
        self._ended: set[str] = set()
        self._openings: Counter[str] = Counter()
        self.losses: list[str] = []
        """What happened, in words, each time that the captioner was lost."""

    def ended(self, block: Block, slowest: float) -> None:
        """A block is done; its slowest batch took so many seconds."""
        self._pulses.learn(slowest)
        self._pulses.left_at(block.name)

    def stuck(self, block: Block) -> str | None:
        """Why a block's worker is to be ended."""
        reason = self._pulses.stuck(block.name)
        if reason is not None:
            self._ended.add(block.name)
        return reason

    def instead(self, block: Block, reason: str) -> list[Block] | None:
        """What is asked for in the place of a block whose worker was lost.

        Raises:
            StageError: that happened too often.
        """
        pulse = self._pulses.left_at(block.name)
        hung = block.name in self._ended
        self._ended.discard(block.name)
        self._board.end(block.name, 0)
        if pulse is None:
            return None  # the engine was not asked, so it is not at fault
        if pulse.opening:
            self._openings[block.name] += 1
            self.losses.append(f"{reason} while it was loaded")
            if self._openings[block.name] == MOST_OPENINGS:
                raise StageError(
                    f"The captioner was lost {MOST_OPENINGS} times while it was loaded: {reason}. "
                    f"Often that is memory; what was written is kept."
                )
            tell(f"{self.losses[-1]}; it is started anew")
            return None
        keys = [key for key in pulse.keys if key in block.lacking]
        shown = ", ".join(keys[:_SHOWN])
        if len(keys) > _SHOWN:
            shown += f" and {len(keys) - _SHOWN} more"
        self.losses.append(f"{reason} at {pulse.kind} of {shown or 'some picture'}")
        if len(self.losses) > MOST_RESTARTS:
            raise StageError(
                f"The captioner was lost {len(self.losses)} times, at last: {self.losses[-1]}. "
                f"What was written is kept; the same command takes up the rest."
            )
        tell(f"{self.losses[-1]}; it is started anew")
        if not keys:
            return None if block.alone else [self._next(block, block.lacking, alone=True)]
        own, others = block.part(pulse.kind, keys)
        rest = [self._next(block, others, block.alone)] if others else []
        if not (block.alone and len(keys) == 1):
            return [*rest, self._next(block, own, alone=True)]
        why = ENGINE_STUCK if hung else ENGINE_DIED
        lost = self._next(block, own, alone=True)
        self._board.end(lost.name, self._give_up(lost, why, f"{reason}, among others and alone"))
        return rest

    def _next(self, block: Block, lacking: Lacking, alone: bool) -> Block:
        name = f"{block.name.partition('.')[0]}.{next(self._names)}"
        return replace(block, name=name, lacking=lacking, alone=alone)
