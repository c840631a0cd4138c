"""How pictures are stored: their size, form and limits."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from curate.base.settings import OPERATIONAL, Settings

ResizeMode = Literal["keep_ratio_largest", "keep_ratio", "center_crop", "border", "no"]
EncodeFormat = Literal["jpg", "png", "webp"]


class PictureSettings(Settings):
    """How pictures are stored, wherever they come from."""

    GROUPS: ClassVar[dict[str, str]] = {"Pictures": "image_size"}
    EXPERT: ClassVar[str] = "hash_distance hash_turned max_pixels max_bytes"

    image_size: int = Field(512, ge=1, description="Pixels of the side that resize_mode names.")
    resize_mode: ResizeMode = Field(
        "keep_ratio_largest",
        description="keep_ratio_largest (longer side), keep_ratio (shorter side), center_crop "
        "(shorter side, then the centre square), border (longer side, white to a square; engine "
        "img2dataset) or no.",
    )
    upscale: bool = Field(False, description="Enlarge pictures that are smaller than image_size.")
    encode_format: EncodeFormat = Field("jpg", description="Stored format: jpg, png or webp.")
    encode_quality: int = Field(
        95,
        ge=0,
        le=100,
        description="Quality of jpg and webp, 1 to 100; img2dataset's png takes 0 to 9 (effort).",
    )
    hash_list: str | None = Field(
        None,
        description="File of md5, sha256 or PDQ hashes, as text or CSV: what is listed is refused "
        "before a byte of it is written.",
        json_schema_extra=OPERATIONAL,
    )
    hash_distance: int = Field(
        31,
        ge=0,
        le=31,
        description="Bits by which a picture's PDQ may differ from a listed one.",
        json_schema_extra=OPERATIONAL,
    )
    hash_turned: bool = Field(
        False,
        description="Compare PDQ also as the picture looks turned by quarters and mirrored.",
        json_schema_extra=OPERATIONAL,
    )
    min_side: int = Field(
        0, ge=0, description="Pictures with a shorter side below this many pixels are not stored."
    )
    max_aspect: float | None = Field(
        None, ge=1, description="Longer side / shorter side above which a picture is not stored."
    )
    max_pixels: int = Field(
        64_000_000, ge=1, description="Width x height above which a picture is not decoded."
    )
    max_bytes: int = Field(
        20_000_000, ge=1, description="Bytes above which a file is not fetched any further."
    )
