"""What is noted of a file before img2dataset's resizer sees it, and whether it may see it."""

from __future__ import annotations

import hashlib
import io
from typing import Any

from curate.base.reasons import FailureError
from curate.download.settings import DownloadSettings
from curate.pictures.jpeg_quality import jpeg_quality
from curate.pictures.resize import Resizer
from curate.pictures.settings import PictureSettings
from curate.pictures.sniff import sniff

LISTED = "listed: "
"""How the resizer's message begins for what is on the hash list."""


class NotingResizer:
    """Its resizer, which also notes of the file what its own table does not say."""

    def __init__(self, resizer: Any, settings: DownloadSettings) -> None:
        self._resizer = resizer
        names = ("hash_list", "hash_distance", "hash_turned", "max_pixels")
        # The rest by default: how a picture is stored is no part of what it is.
        looked_at = PictureSettings(**{name: getattr(settings, name) for name in names})
        self._ours = Resizer(looked_at)
        self.original_format: str | None = None
        self.original_bytes: int | None = None
        self.sha256: str | None = None
        self.jpeg_quality: int | None = None

    def __call__(self, stream: io.BytesIO, boxes: Any = None) -> Any:
        content = stream.getvalue()
        self.original_format = sniff(content)
        self.original_bytes = len(content)
        self.sha256 = hashlib.sha256(content).hexdigest()
        jpeg = self.original_format == "jpeg"
        self.jpeg_quality = jpeg_quality(content) if jpeg else None
        try:
            self._ours.check_listed(content)
        except FailureError as error:
            return None, None, None, None, None, f"{LISTED}{error.failure.detail}"
        return self._resizer(stream, boxes)
