"""A gate of your own: captions that guess what cannot be seen are kept out of training.

    PYTHONPATH=examples caplab recaption DATASET --captioner MODEL --gates gate_of_your_own:GUESSES

A gate sees a batch of captions as columns and flags rows; text in quotes is what the picture says.
"""

import re

import numpy as np
from numpy.typing import NDArray

from recaption.gates.gates import GateColumns
from recaption.gates.registry import Gate

GUESS = re.compile(r"\b(probably|perhaps|might be|appears to|seems to)\b", re.IGNORECASE)
QUOTED = re.compile(r'"[^"]*"')


def guesses(columns: GateColumns) -> NDArray[np.bool_]:
    """(N,) whether the caption guesses, outside of quotes."""
    return np.array([bool(GUESS.search(QUOTED.sub("", text))) for text in columns.texts], bool)


GUESSES = Gate(guesses, rejects=True, retry_helps=True, meaning="guesses what is not to be seen")
