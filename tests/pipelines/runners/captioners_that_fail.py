"""Captioners of a user's own that hang or die over some pictures; they import no model."""

import ctypes
import hashlib
import os
import signal
import time

from recaption.engines.protocol import CaptionOutcome, CaptionRequest


def mark_of(picture: bytes | None) -> str:
    """What a picture is told by."""
    return hashlib.sha256(picture or b"").hexdigest()[:8]


class Failing:
    """Names each picture; hangs over HANGS_OVER, is killed over DIES_OVER.

    It hangs as a driver's call does, with the interpreter's lock: no thread of its process moves.
    """

    name, revision = "failing", "1"

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        marks = [mark_of(picture) for picture in request.pictures]
        if os.environ.get("HANGS_OVER") in marks:
            ctypes.PyDLL(None).sleep(3600)
        if os.environ.get("DIES_OVER") in marks:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)  # a batch takes its time
        return [CaptionOutcome(text=f"A picture with the mark {mark}.") for mark in marks]
