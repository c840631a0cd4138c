"""A captioner of your own: here one that names the brightest colour of a picture.

    PYTHONPATH=examples caplab recaption DATASET --captioner captioner_of_your_own:Brightest \\
        --kinds short

Prompts, repair, gates, retries, resuming and the captions table are those of any captioner.
"""

import io

import numpy as np
from PIL import Image

from recaption.engines.protocol import BROKEN_PICTURE, CaptionOutcome, CaptionRequest

COLOURS = ("red", "green", "blue")


class Brightest:
    """One outcome a row, in the rows' order; a row that fails says why and stops no other."""

    name = "brightest"
    revision = "1"  # another one is another source of captions, beside the first

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        return [self._one(picture) for picture in request.pictures]

    def _one(self, picture: bytes | None) -> CaptionOutcome:
        try:
            pixels = np.asarray(Image.open(io.BytesIO(picture or b"")).convert("RGB"))
        except OSError as error:
            return CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
        colour = COLOURS[int(pixels.mean(axis=(0, 1)).argmax())]
        return CaptionOutcome(text=f"A picture that is mostly {colour}.", finish_reason="stop")
