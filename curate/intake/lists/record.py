"""What was taken in from each list of a dataset: the first one, and those that joined it later.

input/input.json            of the first list
input/input-00012.json      of the list whose rows begin with shard 00012
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curate.base.files import fingerprint, read_json, sha256_file, write_json
from curate.intake.source import Source
from curate.store.dataset import Dataset

_LISTED_FILES = 1000  # more are recorded as one fingerprint


@dataclass(frozen=True)
class Intake:
    """What was taken in from one list."""

    rows: int
    shards: int
    rows_per_shard: int
    format: str
    local: bool
    """The pictures lie in the input itself; see curate.intake.local_pictures."""
    scheme: str
    root: str
    """Where the rows' `source_file` lie: storage scheme ("" for local paths) and folder."""
    url_column: str | None
    text_column: str | None
    image_column: str | None
    imported: dict[str, str]
    """Column of the input, as it is called in its shards -> its name in the scores table."""
    without_text: int
    broken: dict[str, int]
    """Reason -> rows that came in broken."""
    number_texts: list[str] = field(default_factory=list)
    """Imported columns that are text in the input's shards and hold nothing but numbers."""
    columns: list[str] = field(default_factory=list)
    """The input's further columns under their own names."""
    captions: int | None = None
    """Texts of all unbroken rows; None where no row came with several."""
    captioned: int | None = None
    """Rows that they belong to."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Why -> files that are no rows (curate.intake.left_out); all names in left_out.jsonl."""
    left_out_names: dict[str, list[str]] = field(default_factory=dict)
    """Why -> the first of their names."""
    given: str = ""
    """The input as it was named, a path made absolute."""
    encoding: str | None = None
    import_columns: list[str] = field(default_factory=list)
    first_shard: int = 0
    known: int = 0
    """Rows of a list that joined whose keys were in the dataset already; not among `rows`."""

    def shard_names(self) -> list[str]:
        """The shards that this list was cut into."""
        return [f"{self.first_shard + number:05d}" for number in range(self.shards)]

    def reading(self) -> dict[str, Any]:
        """How the list was read, as settings (curate.intake.settings) that read it so again."""
        names = {"url_column": self.url_column, "text_column": self.text_column}
        bare = self.text_column is None and self.format not in ("webdataset", "folder")
        return {
            **{name: value for name, value in names.items() if value is not None},
            **({"without_texts": True} if bare else {}),
            "input_format": self.format,
            "encoding": self.encoding,
            "import_columns": self.import_columns,
        }


def record_path(dataset: Dataset, first_shard: int = 0) -> Path:
    """Where the record of the list lies that begins with this shard."""
    name = f"input-{first_shard:05d}.json" if first_shard else "input.json"
    return dataset.directory / "input" / name


def read_intake(dataset: Dataset, shard: str | None = None) -> Intake | None:
    """What was taken in from the list of `shard`, or from the first one.

    None for a dataset that was not made by `plan_shards`. Reads one record, however many there are.
    """
    paths = dataset.list_records()
    if shard is not None and len(paths) > 1:
        paths = [path for path in paths if first_shard_of(path) <= int(shard)][-1:]
    return read_one(paths[0]) if paths else None


def read_intakes(dataset: Dataset) -> list[Intake]:
    """Those of all lists, in the order in which they joined."""
    return [read_one(path) for path in dataset.list_records()]


def write_intake(dataset: Dataset, intake: Intake, files: Any) -> None:
    """Store a record; `files` is what `files_record` says of the list."""
    path = record_path(dataset, intake.first_shard)
    write_json(path, {**asdict(intake), "files": files})


def first_shard_of(record: Path) -> int:
    """Of a record's name."""
    return int(record.stem.partition("-")[2] or 0)


def read_one(path: Path) -> Intake:
    """Of one list."""
    record = read_json(path)
    record.pop("files", None)
    return Intake(**record)


# ---- whether a list is still what it was --------------------------------------------------------


def place_of(given: object) -> str:
    """An input as it was named, a path made absolute, so that two runs can tell that it is one."""
    name = str(given)
    return name if "://" in name else os.path.abspath(name)


def find_same(dataset: Dataset, source: Source) -> Path | None:
    """The record of the list that `source` is, read in the same way; None where it has changed."""
    return next((p for p in reversed(dataset.list_records()) if is_same(p, source)), None)


def is_same(record_path: Path, source: Source) -> bool:
    """Whether a list is what the record tells of it, read in the same way."""
    record = read_json(record_path)
    place = (source.store.scheme, source.store.root, source.format)
    columns = (source.url_column, source.text_column, source.image_column)
    return (
        place == (record["scheme"], record["root"], record["format"])
        and columns == tuple(record[f"{name}_column"] for name in ("url", "text", "image"))
        and _same_files(record["files"], source)
    )


def files_record(source: Source) -> Any:
    """What the input looked like: enough to see that it changed.

    A local list is hashed. Tars, pictures and remote files go by name and size, remote ones also
    by their time.
    """
    hashed = not source.local and not source.store.scheme
    records = []
    for path in source.files:
        size, modified = source.store.state(path)
        record: dict[str, Any] = {"path": path, "bytes": size}
        if hashed:
            record |= {
                "modified_ns": modified,
                "sha256": sha256_file(Path(source.store.root) / path),
            }
        elif source.store.scheme:
            record["modified_ns"] = modified
        records.append(record)
    if not source.files:
        return {"names": fingerprint(list(source.store.walk()))}
    return records if len(records) <= _LISTED_FILES else {"fingerprint": fingerprint(records)}


def _same_files(known: Any, source: Source) -> bool:
    if not isinstance(known, list) or not known or "sha256" not in known[0]:
        return bool(known == files_record(source))
    if [record["path"] for record in known] != list(source.files):
        return False
    return all(_unchanged(record, source) for record in known)


def _unchanged(known: dict[str, Any], source: Source) -> bool:
    size, modified = source.store.state(known["path"])
    if size != known["bytes"]:
        return False
    # An untouched file needs no hashing; a touched one may still hold the same bytes.
    file = Path(source.store.root) / known["path"]
    return modified == known["modified_ns"] or sha256_file(file) == known["sha256"]
