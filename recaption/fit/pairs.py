"""(image, kind, caption) pairs to fit a captioner to, from a dataset, a folder, JSONL or Parquet.

Pairs of a fine-tune are few by design, so their pictures are held in memory, encoded as they came.
Every row that cannot be learnt from is refused and counted, with its name and reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.store.captions import accepted_captions, several_alt_texts
from curate.store.dataset import Dataset
from curate.store.shards import IMAGE_EXTENSIONS, iter_shard
from recaption.engines.pictures import BrokenPictureError, decode
from recaption.fit.settings import ALT
from recaption.prompts.file import rows_of

MISSING_PICTURE = "missing_picture"
BROKEN_PICTURE = "broken_picture"
NO_CAPTION = "no_caption"
OTHER_KIND = "other_kind"
UNREADABLE = "unreadable_row"
TOO_LONG = "caption_too_long"

_IMAGE_COLUMNS = ("image", "path", "file", "file_name")
_CAPTION_COLUMNS = ("caption", "text")
_TABLES = ("captions.jsonl", "captions.parquet", "metadata.jsonl")


class Row(NamedTuple):
    """One pair: its picture's place in `Pairs.pictures`, the caption's kind, the caption."""

    picture: int
    kind: str
    caption: str


class Refusal(NamedTuple):
    """A row that was left out: its name in the input, and why."""

    name: str
    reason: str


@dataclass
class Pairs:
    """Pictures as encoded files, and the rows that show them.

    Attributes:
        pictures: encoded images, each once; `hashes` their sha256, `names` where they came from.
        rows: what is learnt.
        refused: what was left out.
    """

    pictures: list[bytes] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, picture: bytes, captions: Iterable[tuple[str, str]]) -> None:
        """Add a picture with its (kind, caption) rows, or refuse them."""
        captions = [(kind, " ".join(caption.split())) for kind, caption in captions]
        full = [(kind, caption) for kind, caption in captions if caption]
        self.refused += [Refusal(name, NO_CAPTION)] * (len(captions) - len(full))
        if not full:
            return
        digest = hashlib.sha256(picture).hexdigest()
        if digest not in self._places:
            try:
                decode(picture, longest_side=64)
            except BrokenPictureError:
                self.refused += [Refusal(name, BROKEN_PICTURE)] * len(full)
                return
            self._places[digest] = len(self.pictures)
            self.pictures.append(picture)
            self.hashes.append(digest)
            self.names.append(name)
        place = self._places[digest]
        self.rows += [Row(place, kind, caption) for kind, caption in full]

    def refuse(self, rows: Sequence[int], reason: str) -> None:
        """Leave out rows of `rows` by their places."""
        out = set(rows)
        self.refused += [Refusal(self.names[self.rows[i].picture], reason) for i in sorted(out)]
        self.rows = [row for i, row in enumerate(self.rows) if i not in out]

    def of_kinds(self, kinds: Sequence[str]) -> Pairs:
        """The same pictures with the rows of some kinds."""
        rows = [row for row in self.rows if row.kind in kinds]
        return Pairs(self.pictures, self.hashes, self.names, rows, [], self._places)

    def counts(self) -> dict[str, int]:
        """Kind -> rows."""
        return dict(Counter(row.kind for row in self.rows))

    def reasons(self) -> dict[str, int]:
        """Reason -> refused rows."""
        return dict(Counter(refusal.reason for refusal in self.refused))

    def sha256(self) -> str:
        """Hash of everything that is learnt from, whatever its order."""
        lines = sorted(f"{self.hashes[r.picture]} {r.kind} {r.caption}" for r in self.rows)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def held_out(self, share: float) -> NDArray[np.bool_]:
        """(rows,) whether a row is kept for validation.

        The picture's hash decides, so all captions of a picture go together, other rows do not
        change it, and a picture held out of one training is held out of all. At least one picture
        is held out.
        """
        draws = np.array([int(digest[:8], 16) / 2**32 for digest in self.hashes])
        shown = np.array([row.picture for row in self.rows], np.int64)
        drawn = draws[shown] if len(shown) else np.zeros(0)
        apart = drawn < share
        if len(drawn) and not apart.any():
            apart = drawn == drawn.min()
        return np.asarray(apart, np.bool_)


def read_pairs(
    source: Path | str,
    kinds: Sequence[str],
    selection: str = "",
    caption_sources: Mapping[str, str] | None = None,
) -> Pairs:
    """Pairs of the given kinds.

    Args:
        source: a dataset directory; a folder with captions.jsonl, captions.parquet or a text
            beside each picture (NAME.KIND.txt, or NAME.txt where one kind is asked for); a JSONL
            or Parquet file with the columns image, kind and caption, or image and one column a
            kind. Paths are relative to the file; Parquet may hold pictures as bytes.
        kinds: "alt" is a dataset's alt texts.

    Raises:
        ConfigError: no such place, or no pair in it.
    """
    path = Path(source).expanduser()
    pairs = Pairs()
    if not path.exists():
        raise ConfigError(f"The pairs {path} do not exist.")
    if (path / "dataset.json").exists():
        _from_dataset(pairs, Dataset.open(path), kinds, selection, caption_sources)
    elif path.is_dir():
        table = next((path / name for name in _TABLES if (path / name).exists()), None)
        if table is None:
            _from_folder(pairs, path, kinds)
        else:
            _from_rows(pairs, _table_rows(table), table.parent, kinds)
    else:
        _from_rows(pairs, _table_rows(path), path.parent, kinds)
    if not pairs.rows:
        reasons = ", ".join(f"{n} {reason}" for reason, n in pairs.reasons().items())
        raise ConfigError(
            f"{path} has no pair of kind {', '.join(kinds)}"
            + (f" ({reasons})." if reasons else ".")
        )
    return pairs


def _from_dataset(
    pairs: Pairs,
    dataset: Dataset,
    kinds: Sequence[str],
    selection: str,
    sources: Mapping[str, str] | None,
) -> None:
    wanted = set(dataset.selection_keys(selection)) if selection else None
    written = [kind for kind in kinds if kind != ALT]
    captions: dict[str, list[tuple[str, str]]] = {}
    if written:
        table = accepted_captions(dataset, written, sources)
        columns = (table.column(name).to_pylist() for name in ("key", "kind", "text"))
        for key, kind, text in zip(*columns, strict=True):
            captions.setdefault(key, []).append((kind, text))
    for shard in dataset.shards():
        several = several_alt_texts(dataset, shard) if ALT in kinds else {}
        for key, picture, alt_text in iter_shard(dataset, shard):
            if wanted is not None and key not in wanted:
                continue
            own = captions.get(key, [])
            if ALT in kinds:
                own = [*own, *((ALT, text) for text in several.get(key, [alt_text]))]
            if own:
                pairs.add(key, picture, own)


def _from_folder(pairs: Pairs, folder: Path, kinds: Sequence[str]) -> None:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower().removeprefix(".") not in IMAGE_EXTENSIONS:
            continue
        captions = []
        for kind in kinds:
            beside = path.with_suffix(f".{kind}.txt")
            if not beside.exists() and len(kinds) == 1:
                beside = path.with_suffix(".txt")
            if beside.exists():
                captions.append((kind, beside.read_text(encoding="utf-8", errors="replace")))
        name = str(path.relative_to(folder))
        if captions:
            pairs.add(name, path.read_bytes(), captions)
        else:
            pairs.refused.append(Refusal(name, NO_CAPTION))


def _from_rows(
    pairs: Pairs, rows: Iterator[tuple[int, Any]], root: Path, kinds: Sequence[str]
) -> None:
    for number, row in rows:
        if not isinstance(row, dict):
            pairs.refused.append(Refusal(f"row {number}", UNREADABLE))
            continue
        name, picture = _picture(row, root, number)
        captions = _captions(row, kinds)
        if not captions:
            told = row.get("kind")
            reason = OTHER_KIND if isinstance(told, str) and told not in kinds else NO_CAPTION
            pairs.refused.append(Refusal(name, reason))
        elif picture is None:
            pairs.refused += [Refusal(name, MISSING_PICTURE)] * len(captions)
        else:
            pairs.add(name, picture, captions)


def _captions(row: Mapping[str, Any], kinds: Sequence[str]) -> list[tuple[str, str]]:
    kind = row.get("kind")
    if kind is None and len(kinds) == 1 and not _texts(row.get(kinds[0])):
        kind = kinds[0]  # (image, caption) rows say their kind by what was asked for
    if kind is None:
        return [(k, text) for k in kinds for text in _texts(row.get(k))]
    told = next((texts for name in _CAPTION_COLUMNS if (texts := _texts(row.get(name)))), [])
    return [(kind, text) for text in told] if kind in kinds else []


def _texts(value: Any) -> list[str]:
    """A text, or the texts of a list; anything else is none."""
    listed = value if isinstance(value, list) else [value]
    return [text for text in listed if isinstance(text, str)]


def _picture(row: Mapping[str, Any], root: Path, number: int) -> tuple[str, bytes | None]:
    """The row's name and its encoded picture, None where there is none."""
    given = next((row[name] for name in _IMAGE_COLUMNS if row.get(name) is not None), None)
    if isinstance(given, dict):  # as the `datasets` library stores an image
        given = given.get("bytes") if given.get("bytes") is not None else given.get("path")
    if isinstance(given, bytes):
        return str(row.get("key", f"row {number}")), given
    if not isinstance(given, str):
        return f"row {number}", None
    path = root / given
    return given, path.read_bytes() if path.is_file() else None


def _table_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """(number, row) of a file of rows; None for a line that is no JSON."""
    if path.suffix == ".txt":
        raise ConfigError(f"Pairs are a folder, a .jsonl, .csv or .parquet file, not {path.name}.")
    return enumerate(rows_of(path))
