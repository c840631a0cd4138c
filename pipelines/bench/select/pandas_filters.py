"""DataComp's way of filtering, for the peer's own Python: pandas, a file at a time, NumPy masks.

    python pandas_filters.py METADATA_FOLDER FILTER OUT.npy

METADATA_FOLDER holds one Parquet file a shard with every column that a filter reads, as DataComp
ships its pool (no join is needed). A fraction takes a first pass over the whole column and a sort;
then each file is read again with the columns of the filter, and the keys that pass are saved. The
filters of baselines/apply_filter.py (mlfoundations/datacomp) read as here; language and word counts
are columns already, where theirs are computed. Prints how many passed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

Mask = Callable[[pd.DataFrame, float], "pd.Series[bool]"]
_TEXT, _SIZE = ["alt_text", "original_bytes"], ["original_width", "original_height"]
_B32, _LANGUAGE = "clip_similarity_b32", "text_language"


def _long_enough(df: pd.DataFrame) -> pd.Series[bool]:
    return (df.alt_text.str.len() >= 5) & (df.original_bytes >= 5000)


def _english(df: pd.DataFrame, _: float = 0) -> pd.Series[bool]:
    return (df.text_language == "en") & (df.clip_similarity_b32 >= np.float32(0.28))


def _basic(df: pd.DataFrame, _: float) -> pd.Series[bool]:
    low = np.minimum(df.original_width, df.original_height)
    high = np.maximum(df.original_width, df.original_height)
    text = (df.text_language == "en") & (df.text_words > 2) & (df.alt_text.str.len() > 5)
    return text & (low >= 200) & (high / low <= 3.0)


def _large(df: pd.DataFrame) -> pd.Series[bool]:
    return (df.original_width >= 512) & (df.original_height >= 512)


FILTERS: dict[str, tuple[list[str], Mask]] = {
    "laion-400m": (
        [*_TEXT, _B32],
        lambda df, _: _long_enough(df) & (df.clip_similarity_b32 >= np.float32(0.3)),
    ),
    "laion-5b-en": ([*_TEXT, _LANGUAGE, _B32], lambda df, _: _long_enough(df) & _english(df)),
    "laion-aesthetics": (["aesthetic"], lambda df, _: df.aesthetic >= 4.5),
    "sd1-aesthetics": (
        [*_SIZE, "aesthetic", "watermark"],
        lambda df, _: _large(df) & (df.aesthetic > 5) & (df.watermark < 0.5),
    ),
    "sd2-base": (
        [*_SIZE, "aesthetic", "nsfw"],
        lambda df, _: (df.nsfw < np.float32(0.1)) & (df.aesthetic >= 4.5) & _large(df),
    ),
    "datacomp-basic": ([*_SIZE, "alt_text", _LANGUAGE, "text_words"], _basic),
    "datacomp-clip": (
        ["clip_similarity"],
        lambda df, least: df.clip_similarity >= np.float32(least),
    ),
    "datacomp-clip-b32": ([_B32], lambda df, _: df.clip_similarity_b32 >= 0.25),
    "datacomp-laion-2b": ([_LANGUAGE, _B32], _english),
}


def threshold_of(files: list[Path], column: str, fraction: float) -> float:
    """The value at place int(n * fraction) from the top, counted from zero."""
    pool = pd.concat([pd.read_parquet(file, columns=[column]) for file in files])
    values = np.sort(-pool[column].to_numpy())  # nulls are NaN and sort last
    return float(-values[int(len(pool) * fraction)])


def main(folder: Path, name: str, out: Path) -> None:
    """Filter, save the keys, print the count."""
    files = sorted(folder.glob("*.parquet"))
    columns, mask = FILTERS[name]
    least = threshold_of(files, columns[0], 0.3) if name == "datacomp-clip" else 0.0
    keys = []
    for file in files:
        df = pd.read_parquet(file, columns=["key", *columns])
        keys.append(df.key[mask(df, least)].to_numpy())
    chosen = np.sort(np.concatenate(keys).astype("S32"))
    np.save(out, chosen)
    print(len(chosen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
