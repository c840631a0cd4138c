"""Which samples show a picture of a reference set: evaluation images, or an earlier dataset.

The machinery is that of duplicate search (curate.duplicates.search): equal bytes or pixels, and
near copies that hashes and copy descriptors propose and the pixels decide. References are compared
with samples only as far as the smaller side asks, never the larger with itself. Matches are a table
of their own, reference_matches, apart from the duplicates: a sample that shows an evaluation
picture is to go even where it is the only one of its kind.

DataComp drops what a copy-detection embedding (ISC21's winner) puts at a cosine of 0.604 or more
from an evaluation image (Gadre and others, 2023, section 3.2, and mlfoundations/dataset2metadata).
Here that cosine only proposes, at a lower value, and each pair is looked at.

Cost: fingerprints of the references once (about 2 CPU ms a picture); then one pass over the
dataset's fingerprints and 165 look-ups a sample and view in tables of the smaller side.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.column_marks import note, noted_in
from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint
from curate.base.memory import MemoryLimit, parse_bytes
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.duplicates.earlier_search import column_marks
from curate.duplicates.pairs import Search, exact_pairs, near_pairs
from curate.duplicates.reference_folder import fingerprint_folder, fingerprinted_keys, paths_of
from curate.duplicates.samples import Found, load_samples
from curate.duplicates.search import BYTES_A_SAMPLE
from curate.duplicates.settings import UNUSED, ReferenceSettings
from curate.duplicates.verify.thumbnails import scratch_folder
from curate.duplicates.verify.verifier import Verifier
from curate.store.contract import REFERENCE_MATCHES
from curate.store.dataset import Dataset
from curate.store.holes import note_finished, parquet_damage
from curate.store.lock import writing
from curate.store.sample_view import tables_version

_NOTE = b"caplab_references"
_VERSION = 3

Purpose = Literal["contaminated", "known"]


@dataclass(frozen=True)
class ReferenceSummary(Summary):
    """What was found. `samples` were compared with `references`; `matched` samples show one."""

    name: str
    samples: int
    references: int
    unreadable: int
    """Reference files that do not decode."""
    matched: int
    matched_references: int
    exact: int
    """Of the matched samples, those equal to a reference in bytes or pixels."""
    crowded: int = 0
    """Samples and references with more look-alikes than `look_alikes` allows."""

    def text(self) -> str:
        """One line for people."""
        share = self.matched / max(self.samples, 1)
        shown = amount(self.matched_references, "picture is", "pictures are")
        return (
            f"references {self.name!r}: {self.matched:,} of {amount(self.samples, 'sample')} "
            f"({share:.3%}) show one of {amount(self.references, 'picture')} ({self.exact:,} "
            f"exactly, {self.matched - self.exact:,} as near copies; {shown} shown; "
            f"{self.unreadable:,} could not be read)"
        ) + (
            f"; of {self.crowded:,} with more than look_alikes allows the likeliest were looked at"
            if self.crowded
            else ""
        )


def find_references(
    dataset: Dataset,
    place: str | Path,
    settings: ReferenceSettings,
    purpose: Purpose = "contaminated",
) -> ReferenceSummary:
    """Find the samples that show a picture of `place` and write their table.

    With the same settings over unchanged fingerprints it returns what was found before.

    Args:
        place: a dataset directory, or a folder (or glob) of pictures, local or remote.
        purpose: the column of a selection that is true for the matched samples: "contaminated" by
            evaluation images, or "known" from an earlier dataset.

    Raises:
        ConfigError: a bad name, or nothing at `place`.
        DatasetError: fingerprints are missing, or the name stands for another folder.
    """
    name = settings.name or re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(place).name).strip("-.") or "set"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}", name):
        raise ConfigError(
            f"{name!r} cannot name references; use letters, digits, dots, dashes, underscores."
        )
    if not dataset.has_table("fingerprints"):
        raise DatasetError(
            f"{dataset.directory} has no fingerprints yet; finish `caplab curate` on it first."
        )
    with writing(dataset.directory, f"references/{name}"):
        return _find_references(dataset, place, settings, purpose, name)


def _find_references(
    dataset: Dataset, place: str | Path, settings: ReferenceSettings, purpose: Purpose, name: str
) -> ReferenceSummary:
    is_dataset = (Path(place) / "dataset.json").exists()
    if is_dataset:
        references = Dataset.open(place)
        if references.directory == dataset.directory:
            raise ConfigError("A dataset cannot be its own reference; use `caplab duplicates`.")
    else:
        references = fingerprint_folder(str(place), dataset.directory / "references" / name)
    rule = {key: value for key, value in settings.identity().items() if key not in UNUSED}
    sources = [
        [str(some.directory), tables_version(some, ["samples", "fingerprints"])]
        for some in (references, dataset)
    ]
    mark = fingerprint([_VERSION, purpose, rule, sources, column_marks(dataset, "fingerprints")])
    if parquet_damage(path := dataset.table_path("reference_matches", name)):
        path.unlink(missing_ok=True)  # found again
    if (before := _found_before(dataset, name, mark)) is not None:
        return before
    with scratch_folder(dataset.directory) as scratch:
        table, counts = _find(dataset, references, is_dataset, name, purpose, settings, scratch)
    summary = ReferenceSummary(name=name, **counts)
    last = note({"mark": mark, "summary": asdict(summary)}, _NOTE)
    dataset.write_table("reference_matches", table.replace_schema_metadata(last), name)
    note_finished(dataset, "reference_matches")
    return summary


def _find(
    dataset: Dataset,
    references: Dataset,
    is_dataset: bool,
    name: str,
    purpose: Purpose,
    settings: ReferenceSettings,
    scratch: Path,
) -> tuple[pa.Table, dict[str, int]]:
    asked, keys = fingerprinted_keys(references), fingerprinted_keys(dataset)
    total = len(asked) + len(keys)
    memory = MemoryLimit(parse_bytes(settings.memory_limit)).blocks(total * BYTES_A_SAMPLE)
    # References come first: in a crowd of look-alikes it is they whom everybody meets.
    samples = load_samples([(references, asked), (dataset, keys)], scratch)
    is_reference = np.arange(total) < len(asked)
    _, representative = exact_pairs(samples)
    chosen = np.flatnonzero((representative == np.arange(total)) & samples.structured)
    smaller = is_reference if 2 * len(asked) <= total else ~is_reference
    search = Search(smaller, None, memory)
    near = near_pairs(samples, chosen, Verifier(samples, settings), settings, search)
    sample, reference, distance, is_exact = _matches(near, representative, is_reference)
    titles = samples.keys[reference].astype(str)
    if not is_dataset:
        paths = paths_of(references)
        titles = np.array([paths[key] for key in titles.tolist()], object)
    order = np.lexsort((titles.astype(str), samples.keys[sample]))
    table = pa.table(
        [
            pa.array(samples.keys[sample][order].astype(str), pa.string()),
            pa.array([purpose] * len(order), pa.string()),
            pa.array([name] * len(order), pa.string()),
            pa.array(titles[order].tolist(), pa.string()),
            pa.array(np.where(is_exact, "exact", "near")[order].tolist(), pa.string()),
            pa.array(distance[order], pa.float32()),
        ],
        schema=REFERENCE_MATCHES,
    )
    return table, {
        "samples": len(keys),
        "references": len(asked),
        "unreadable": 0 if is_dataset else len(paths_of(references)) - len(asked),
        "matched": len(np.unique(sample)),
        "matched_references": len(np.unique(reference)),
        "exact": len(np.unique(sample[is_exact])),
        "crowded": near.crowded,
    }


def _matches(
    near: Found, representative: NDArray[np.int64], is_reference: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Sample rows, reference rows, distances, and whether exact: one entry a match.

    Equal pictures share their matches. Of equal references the first stands for all.
    """
    total = len(representative)
    rows = np.arange(total)
    exact = rows[~is_reference & is_reference[representative]]
    # A pair holds for everything equal to its samples.
    by_group = np.argsort(representative, kind="stable")
    groups = representative[by_group]
    samples, references, distances = [exact], [representative[exact]], [np.zeros(len(exact))]
    for here, there in ((0, 1), (1, 0)):
        crosses = is_reference[near.pairs[:, here]] & ~is_reference[near.pairs[:, there]]
        reference, stands_for = near.pairs[crosses, here], near.pairs[crosses, there]
        start = np.searchsorted(groups, stands_for, side="left")
        count = np.searchsorted(groups, stands_for, side="right") - start
        place = np.repeat(start, count) + _within(count)
        samples.append(by_group[place])
        references.append(np.repeat(reference, count))
        distances.append(np.repeat(near.distance[crosses], count))
    sizes = [len(part) for part in samples]
    is_exact = np.arange(sum(sizes)) < sizes[0]
    return (
        np.concatenate(samples),
        np.concatenate(references),
        np.concatenate(distances).astype(np.float32),
        is_exact,
    )


def _within(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ..., counts[0] - 1, 0, 1, ..., counts[1] - 1, ..."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)


def _found_before(dataset: Dataset, name: str, mark: str) -> ReferenceSummary | None:
    last = noted_in(dataset.table_path("reference_matches", name), _NOTE)
    return ReferenceSummary(**last["summary"]) if last.get("mark") == mark else None
