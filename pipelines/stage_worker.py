"""One local worker process: `python -m pipelines.stage_worker`, spoken to over its pipes.

It reads a pickled (stage, dataset) from stdin, then one shard's name a line, and answers each with
one line of JSON. It ends with the process that started it (pipelines.children), whose next run
must find nobody at work. It imports what the stage needs and nothing else, so that it starts
quickly; pickle is safe here, for the one who writes is the process that started it.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from typing import BinaryIO

from curate.base.errors import CaplabError
from pipelines.failures import in_words


def main() -> None:
    """Open the stage once, then run it shard by shard until stdin ends."""
    # What a stage prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    (size,) = struct.unpack("!Q", sys.stdin.buffer.read(8))
    stage, dataset = pickle.loads(sys.stdin.buffer.read(size))
    opened = False
    for line in sys.stdin.buffer:
        try:
            if not opened:
                stage.open()
                opened = True
            _answer(answers, {"counts": stage.run(dataset, line.decode().strip())})
        except CaplabError as error:
            _answer(answers, {"error": str(error), "kind": type(error).__name__})
        except Exception as error:
            _answer(answers, {"error": in_words(error), "kind": None})


def _answer(answers: BinaryIO, message: dict[str, object]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        os._exit(130)  # the driver, interrupted as well, says so
