"""A text or a picture as a vector, by the very CLIP model that embedded the dataset's pictures.

Which one that was, the dataset's record tells (scores.json, or dataset.json where nothing was
scored since), and the signature in the embeddings' files says whether it is still the same one:
weights, config, tokenizer and precision. Vectors of another model would be compared without an
error and mean nothing, so where the two disagree the search is refused.

Loading costs seconds, torch's import and the weights. So the vector of a text is kept, 2 D bytes:

    DIR/search/texts/HASH.npz       HASH of the model's signature and the text; how many of its
                                    tokens the model did not read stands beside it
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.base.errors import CaplabError, ConfigError
from curate.base.files import atomic_path, fingerprint, read_record
from curate.base.reasons import printable
from curate.base.settings import S
from curate.pictures.settings import PictureSettings
from curate.scoring.settings import ScoreSettings
from curate.search.index import column_mark
from curate.search.place import search_folder
from curate.store.dataset import Dataset

if TYPE_CHECKING:
    from curate.duplicates.candidates.vectors import Floats
    from curate.scoring.scorers.clip import Clip


class ClipQuery:
    """Reads texts and pictures for the embeddings of one CLIP model. Threads may share it."""

    def __init__(self, dataset: Dataset, label: str | None = None, device: str = "auto") -> None:
        self.dataset, self.label, self.device = dataset, label, device
        self._clip: Clip | None = None
        self._loading = threading.Lock()

    @property
    def model_name(self) -> str:
        """As the record names it."""
        settings = _scored_with(self.dataset)
        name: str = settings.more_clips.get(self.label, "") if self.label else settings.clip_model
        return name

    @property
    def is_loaded(self) -> bool:
        """Whether the next picture or new text costs no loading."""
        return self._clip is not None

    def knows(self, text: str) -> bool:
        """Whether `text` needs no model, now or in another process: it was asked for before."""
        return self._path(text).is_file()

    def text(self, text: str) -> tuple[Floats, int]:
        """(D,) unit vector of a text, and how many tokens at its end lie behind the model's context
        and were not read. Loads the model unless the same text was asked for before.

        Raises:
            ConfigError: an empty text, or the model that made the embeddings cannot be had.
        """
        if not text.strip():
            raise ConfigError("The text to search for is empty.")
        path = self._path(text)
        if path.is_file():
            with np.load(path) as kept:
                return kept["vector"].astype(np.float32), int(kept["unread"])
        vectors, unread = self.load().model.read_texts([text])
        left = unread[0] or 0
        with suppress(OSError), atomic_path(path) as temporary, open(temporary, "wb") as file:
            # The vector's numbers lie on this grid.
            np.savez(file, vector=vectors[0].astype(np.float16), unread=left)
        return vectors[0], left

    def _path(self, text: str) -> Path:
        mark = fingerprint([column_mark(self.dataset, self.label), text])
        name = Path("texts", f"{mark}.npz")
        own = self.dataset.directory / "search" / name
        return own if own.is_file() else search_folder(self.dataset.directory) / name

    def picture(self, raw: bytes) -> Floats:
        """(D,) unit vector of a picture file's bytes.

        It takes the road of the dataset's own pictures, with their limits on bytes and pixels: the
        file of a stored picture has its embedding.

        Raises:
            ConfigError: they are no picture that can be decoded, or as for `text`.
        """
        from curate.base.reasons import Failure
        from curate.pictures.decode import decode_batch
        from curate.pictures.resize import Resizer

        settings = _stored_as(self.dataset)
        if len(raw) > settings.max_bytes:
            raise ConfigError(
                f"This picture file has {len(raw):,} bytes, more than {settings.max_bytes:,}."
            )
        stored = Resizer(settings).outcome(raw)
        if isinstance(stored, Failure):
            told = f" ({stored.detail})" if stored.detail else ""
            raise ConfigError(f"This is no picture to search by: {stored.reason.value}{told}.")
        clip = self.load()
        batch = decode_batch([("picture", stored.content)], clip.view)
        return clip.model.embed_pictures(batch.picture)[0]

    def load(self) -> Clip:
        """The model, checked and loaded; once."""
        with self._loading:
            if self._clip is None:
                self._clip = self._checked()
            return self._clip

    def _checked(self) -> Clip:
        from curate.scoring.scorers.clip import Clip
        from curate.scoring.scorers.scorer import ScorerGraph

        settings = _scored_with(self.dataset).model_copy(update={"device": self.device})
        others = "Pictures like a stored one need no model: --like KEY"
        try:
            suffix = f"_{self.label}" if self.label else ""
            clip = next((one for one in Clip.of(settings) if one.suffix == suffix), None)
            if clip is None:
                raise ConfigError(f"its record names no CLIP {self.label!r}")
            mark = ScorerGraph([clip]).signatures[f"image_embedding{suffix}"]
            if mark != column_mark(self.dataset, self.label):
                raise ConfigError(
                    "its weights, config, tokenizer or precision are other ones now; `caplab score "
                    f"{self.dataset.directory}` embeds the pictures again"
                )
            clip.open()
        except CaplabError as error:
            raise ConfigError(
                f"The CLIP model that embedded the pictures, {self.model_name}, cannot be had: "
                f"{str(error).rstrip('.')}. {others}."
            ) from error
        return clip


def read_picture(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{printable(str(path))} is neither a key of the dataset nor a file that can be read "
            f"({error.strerror})."
        ) from error


def _scored_with(dataset: Dataset) -> ScoreSettings:
    path = dataset.directory / "scores.json"
    return _of_record(ScoreSettings, read_record(path) if path.exists() else dataset.record())


def _stored_as(dataset: Dataset) -> PictureSettings:
    """How the dataset stores pictures; small and narrow ones may be asked for all the same."""
    settings = _of_record(PictureSettings, dataset.record())
    return settings.model_copy(update={"min_side": 0, "max_aspect": None})


def _of_record(cls: type[S], record: Mapping[str, Any]) -> S:
    stored = record.get("settings", {})
    return cls(**{name: value for name, value in stored.items() if name in cls.model_fields})
