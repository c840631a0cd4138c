"""Settings of the intake: what an input is, and how it is read."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from curate.base.settings import OPERATIONAL, Settings

InputFormat = Literal["parquet", "csv", "tsv", "jsonl", "json", "text", "webdataset", "folder"]


class IntakeSettings(Settings):
    """How the list, the tars or the folder of an input is read."""

    GROUPS: ClassVar[dict[str, str]] = {"Input": "url_column"}
    EXPERT: ClassVar[str] = "encoding"

    url_column: str | None = Field(
        None, description="Column with the URLs; by default url, URL, image_url and the like."
    )
    text_column: str | None = Field(
        None,
        description="Column with the texts; by default text, TEXT, caption, alt and the like. "
        "A key inside an object is named as in caption.en.",
    )
    without_texts: bool = Field(
        False, description="The list has no texts; otherwise one without a text column is refused."
    )
    input_format: InputFormat | None = Field(
        None,
        description="parquet, csv, tsv, jsonl, json, text (a URL a line), webdataset or folder; by "
        "default by the input's name and contents.",
    )
    encoding: str | None = Field(
        None,
        description="Encoding of a list in text, such as cp1252 or utf-16; by default UTF-8, or "
        "what a byte order mark says.",
    )
    import_columns: list[str] = Field(
        [],
        description="Further columns to import as scores, beside those of LAION, COYO and DataComp "
        "that are known: column X becomes imported_x.",
        json_schema_extra=OPERATIONAL,
    )
    rows_per_shard: int = Field(10_000, gt=0, description="Rows of the input list a shard.")
