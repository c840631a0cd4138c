"""A picture's scores in groups, in words, each with its unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.report.text import words

FIT, MODELS, PICTURE, TEXT, OTHERS = (
    "Picture and text",
    "Models' judgements",
    "The picture",
    "The alt text",
    "Further scores",
)
GROUPS = (FIT, MODELS, PICTURE, TEXT, OTHERS)


@dataclass(frozen=True)
class Meaning:
    """Where a score stands, and what its number counts."""

    group: str
    unit: str = ""


_COSINE, _SHARE, _LIKELY = "cosine, -1 to 1", "share, 0 to 1", "probability, 0 to 1"
# docs/scores.md has the definitions; what is not here is grouped by its name.
MEANINGS: Mapping[str, Meaning] = {
    "clip_similarity": Meaning(FIT, _COSINE),
    "clip_truncated_tokens": Meaning(FIT, "tokens"),
    "aesthetic": Meaning(MODELS, "about 1 to 10"),
    "nsfw": Meaning(MODELS, _LIKELY),
    "nsfw_classifier": Meaning(MODELS, _LIKELY),
    "watermark": Meaning(MODELS, _LIKELY),
    "aspect_ratio": Meaning(PICTURE, "longer / shorter side"),
    "brightness": Meaning(PICTURE, "mean luma, 0 to 1"),
    "contrast": Meaning(PICTURE, "deviation of luma, 0 to 0.5"),
    "entropy": Meaning(PICTURE, "bits, 0 to 8"),
    "colourfulness": Meaning(PICTURE, "0 grey, 33 moderate, 82 high"),
    "blur": Meaning(PICTURE, "variance of the Laplacian; low is blurred"),
    "border_share": Meaning(PICTURE, _SHARE),
    "grey_share": Meaning(PICTURE, _SHARE),
    "face_area": Meaning(PICTURE, _SHARE),
    "text_area": Meaning(PICTURE, _SHARE),
    "bytes_per_pixel": Meaning(PICTURE, "bytes a pixel"),
    "jpeg_quality": Meaning(PICTURE, "1 to 100"),
    "decode_error": Meaning(PICTURE),
    "text_chars": Meaning(TEXT, "characters"),
    "text_words": Meaning(TEXT, "words"),
    "text_symbol_share": Meaning(TEXT, _SHARE),
    "text_digit_share": Meaning(TEXT, _SHARE),
    "text_repetition": Meaning(TEXT, _SHARE),
    "text_language_confidence": Meaning(TEXT, _LIKELY),
}


def grouped_scores(row: Mapping[str, Any], types: Mapping[str, str]) -> list[dict[str, Any]]:
    """The scores of a row in GROUPS, empty groups left out.

    Args:
        row: column -> value, of the table of scores.
        types: column -> DuckDB's type.

    Returns:
        [{"group": name, "scores": [{name, label, value, unit, type}]}], type "number", "bool" or
        "text".
    """
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS}
    for name, value in row.items():
        if name == "key" or "[" in types[name]:  # lists are for machines
            continue
        if name == "decode_error" and value is None:
            continue
        meaning = MEANINGS.get(name) or _by_name(name)
        groups[meaning.group].append(
            {
                "name": name,
                "label": words(name),
                "value": value,
                "unit": meaning.unit,
                "type": _kind(types[name]),
            }
        )
    return [{"group": name, "scores": listed} for name, listed in groups.items() if listed]


def _by_name(name: str) -> Meaning:
    for start, meaning in _starts():
        if name.startswith(start):
            return meaning
    return Meaning(OTHERS)


def _starts() -> Iterator[tuple[str, Meaning]]:
    """What columns of further models are, by the start of their names."""
    yield "clip_similarity_", MEANINGS["clip_similarity"]
    yield "clip_", Meaning(FIT)
    yield "text_", Meaning(TEXT)
    yield "aesthetic", Meaning(MODELS)


def _kind(of_duckdb: str) -> str:
    if of_duckdb == "BOOLEAN":
        return "bool"
    return "text" if of_duckdb == "VARCHAR" else "number"
