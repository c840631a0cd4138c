"""Column names that public lists use, and which of their columns are scores.

LAION-400M/5B: URL, TEXT, WIDTH, HEIGHT, similarity, punsafe, pwatermark, NSFW, LANGUAGE, hash, and
AESTHETIC_SCORE or prediction in its aesthetic subsets. COYO-700M: id, url, text, width, height,
image_phash, word_count, num_faces, clip_similarity_vitb32, ... DataComp: uid, url, text,
original_width, clip_b32_similarity_score, clip_l14_similarity_score, face_bboxes, sha256.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from curate.base.errors import ConfigError

# Recognised names, the most telling first; compared without case.
URL_COLUMNS = ("url", "image_url", "imageurl", "img_url", "image_link", "link", "src")
# "alt_texts" is what the JSON of our own shards calls several texts of one picture.
TEXT_COLUMNS = (
    *("alt_texts", "alt_text", "alttext", "alt", "text", "txt", "texts", "caption", "captions"),
    *("prompt", "title", "description", "sentences"),
)
# Columns that may hold the picture itself, as bytes or as a struct of bytes and path.
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "picture")
# Where a file that lies beside a list of texts is named.
FILE_COLUMNS = ("file_name", "filename", "image_path", "image", "file", "path")
# Where a sample of a dataset of ours is named.
KEY_COLUMNS = ("key", "sample_key")

# Hashes that a download is checked against, under the names that they have in the shards.
HASH_COLUMNS = {"md5": "md5", "sha256": "sha256", "sha512": "sha512"}
HASH_COLUMNS |= {
    f"{name}{end}": name for name in ("md5", "sha256", "sha512") for end in ("hash", "_hash")
}

IMPORTED = "imported_"
"""What stands before the name of an imported score, so that none is mistaken for one of ours."""

# Names of published scores, in lower case. A list's own further scores are named by the user.
SCORE_COLUMNS = frozenset(
    {
        # LAION
        "similarity",
        "punsafe",
        "pwatermark",
        "nsfw",
        "language",
        "aesthetic",
        "aesthetic_score",
        "prediction",
        # COYO
        "word_count",
        "text_length",
        "num_tokens_bert",
        "num_tokens_gpt",
        "num_faces",
        "clip_similarity_vitb32",
        "clip_similarity_vitl14",
        "nsfw_score_opennsfw2",
        "nsfw_score_gantman",
        "watermark_score",
        "aesthetic_score_laion_v2",
        # DataComp
        "clip_b32_similarity_score",
        "clip_l14_similarity_score",
        # Others that use the same words
        "clip_score",
        "clip_similarity",
        "clip_similarity_score",
        "aesthetic_score_v2",
        "watermark_probability",
        "nsfw_score",
        "safety_score",
        "lang",
    }
)


def hash_name(column: str) -> str | None:
    """md5, sha256 or sha512 for a column of such hashes, in any case; None for any other."""
    return HASH_COLUMNS.get(column.lower())


def imported_name(column: str) -> str:
    """The name in the scores table: `imported_` and the column's own name in lower case."""
    return IMPORTED + column.lower()


def is_score(column: str) -> bool:
    """Whether a column of this name is a score of a published list."""
    return column.lower() in SCORE_COLUMNS


def score_columns(columns: Iterable[str], wanted: Sequence[str] = ()) -> dict[str, str]:
    """Column -> name in the scores table, for known scores and those that `wanted` names.

    Raises:
        ConfigError: a wanted column is not there, or two would get one name.
    """
    columns = list(columns)
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise ConfigError(
            f"There is no column {missing[0]!r} to import as a score; the columns are "
            f"{', '.join(columns) or 'none'}."
        )
    refused = [name for name in wanted if name.lower() in ("key", "row", "url", "alt_text")]
    if refused:
        raise ConfigError(f"The column {refused[0]!r} cannot be a score; rename it in the input.")
    chosen: dict[str, str] = {}
    for column in columns:
        if is_score(column) or column in wanted:
            name = imported_name(column)
            if name in chosen.values():
                raise ConfigError(
                    f"Two columns of the input would both be imported as {name}; rename one."
                )
            chosen[column] = name
    return chosen


def find_column(columns: Iterable[str], usual: Sequence[str]) -> str | None:
    """The first of the `usual` names that is there, in any case; None if there is none."""
    by_lower: dict[str, str] = {}
    for name in columns:
        by_lower.setdefault(name.lower(), name)
    return next((by_lower[name] for name in usual if name in by_lower), None)


def choose_column(
    columns: Iterable[str],
    wanted: str | None,
    usual: Sequence[str],
    what: str,
    option: str,
    where: str,
) -> str:
    """As `find_column`, or exactly the `wanted` one (its case may differ).

    Raises:
        ConfigError: it is not there; the sentence lists what is.
    """
    columns = list(columns)
    if wanted is not None and wanted in columns:
        return wanted
    chosen = find_column(columns, usual if wanted is None else (wanted.lower(),))
    if chosen is not None:
        return chosen
    missing = f"no {what} column" if wanted is None else f"no column {wanted!r}"
    raise ConfigError(
        f"{where} has {missing}; its columns are {', '.join(columns)}. Name one with {option}."
    )
