"""Settings of `caplab import-captions`."""

from __future__ import annotations

from pydantic import Field

from curate.base.settings import Settings


class ImportSettings(Settings):
    """How texts in files are read, and under which name they are kept."""

    name: str = Field(
        "",
        description="Keep them as the source imported-NAME; by default named after the folder or "
        "file.",
    )
    text_column: str | None = Field(
        None,
        description="Column of a list that holds the texts; by default caption, text and the like. "
        "A key inside an object is named as in caption.en.",
    )
    encoding: str | None = Field(
        None,
        description="Encoding of the texts, such as cp1252 or utf-16; by default UTF-8, or what a "
        "byte order mark says.",
    )
