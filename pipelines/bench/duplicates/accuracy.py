"""`caplab bench duplicates`: recall of edited photographs, false pairs and cost, beside the peers.

Recall of an edit: the share of edited photographs that are paired with their original, each kind of
edit searched on its own among all originals. A false pair is one of two photographs that are no
copies: every pair that any setting of ours found among the originals was looked at, and those that
are true stand, by file name and with a reason, in known_duplicates.json. So do "siblings": one
drawing or one page in two versions that differ in a label or a number, which a person may or may
not want to drop; pairs of them are counted apart. Recall is given for all edited pictures and for
those that are photographs by a rule that no tool's answer enters (`is_photographic`).

Another set of pictures whose copies are known is a module beside this one that returns its figures
(published.py is the pattern) and a line in `bench_duplicates`; generated data are rows of KINDS in
scale.py.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.bench.common.figures import Figures, work_folder
from pipelines.bench.common.peers import peer_python, peer_version
from pipelines.bench.common.processes import run_measured
from pipelines.bench.duplicates import our_pairs
from pipelines.bench.duplicates.edited_photographs import (
    EditedPhotographs,
    write_edited_photographs,
)
from pipelines.bench.duplicates.photo_edits import EDITS

GOAL, GOAL_LARGE_CROP = 0.99, 0.9
PEERS = {
    "imagededup": {"<=10": 10.0, "<=8": 8.0},
    "fastdup": {">=.96": 0.96, ">=.90": 0.90},
}
"""Peer -> thresholds, a column each. imagededup's default is 10 bits; fastdup lists pairs from a
cosine of 0.9 on and joins components at 0.96."""

Pair = tuple[str, str]
"""Names of two files, the lesser first; an edited copy is "edit/NAME"."""


@dataclass
class Found:
    """What one tool at one setting found."""

    cpu_ms: float
    """A picture, over the originals."""
    originals: set[Pair]
    edits: dict[str, set[Pair]] = field(default_factory=dict)


def duplicate_figures(
    photographs: Sequence[Path], limit: int, seed: int, peers: Sequence[str], out: Path | None
) -> tuple[Figures, str]:
    """All figures, and the table of recalls for a person.

    Args:
        photographs: folders of pictures; those that are held out of training may be edited.
        limit: how many to edit; 0 for false pairs and costs alone.
    """
    with tempfile.TemporaryDirectory(prefix="duplicates-", dir=work_folder(out)) as folder:
        data = write_edited_photographs(Path(folder), list(photographs), limit, seed)
        columns = _ours(data)
        for peer in peers:
            columns |= _peer(peer, data)
    figures = Figures("duplicates")
    edits = list(EDITS) if data.edited else []
    for edit in edits:
        large = edit.startswith("crop") and int(edit.rsplit("_", 1)[1]) > 8
        for column, found in columns.items():
            goal = (GOAL_LARGE_CROP if large else GOAL) if column == "near" else None
            name = f"{_slug(column)}/{edit}/recall"
            share = recall(found, edit, data, data.edited)
            figures.add(name, share, "share", at_least=goal)
            if data.photographic:
                share = recall(found, edit, data, data.photographic)
                figures.add(f"{name}_photographs", share, "share", at_least=goal)
    lines = _table(columns, data) if edits else []
    figures.add("photographs", len(data.files), "files")
    known = known_duplicates()
    for column, found in columns.items():
        goal = 0 if column == "near" else None
        kinds = {where: _kinds(pairs, data, known) for where, pairs in found.edits.items()}
        own = _kinds(found.originals, data, known)
        crossed = sum(len(kind["false"]) for kind in kinds.values())
        slug = _slug(column)
        figures.add(f"{slug}/false_pairs", len(own["false"]), "pairs", at_most=goal)
        figures.add(f"{slug}/sibling_pairs", len(own["sibling"]), "pairs")
        figures.add(f"{slug}/same_picture_pairs", len(own["same"]), "pairs")
        if edits:
            figures.add(f"{slug}/false_pairs_with_edits", crossed, "pairs", at_most=goal)
        if column in our_pairs.LEVELS:  # by name, so that somebody can look
            for where, kind in {"originals": own, **kinds}.items():
                lines += [f"false pair ({column}, {where}): {a} | {b}" for a, b in kind["false"]]
    ours = columns["near"].cpu_ms
    for peer in peers:
        beside = (peer_version(peer), columns[f"{peer} {next(iter(PEERS[peer]))}"].cpu_ms)
        figures.add(f"cpu_per_image/{peer}", ours, "ms", beside, at_most=1.0)
    if not peers:
        figures.add("cpu_per_image", ours, "ms")
    return figures, "".join(f"{line}\n" for line in lines)


# ---- searching ---------------------------------------------------------------------------------


def _ours(data: EditedPhotographs) -> dict[str, Found]:
    files = [data.original(number) for number in range(len(data.files))]
    originals = our_pairs.fingerprints(files)
    names = [file.name for file in files]
    found = {}

    def search(
        level: str, prints: our_pairs.Fingerprints, names: list[str], fresh: int
    ) -> set[Pair]:
        with tempfile.TemporaryDirectory() as scratch:
            rows = our_pairs.pairs(prints, level, Path(scratch), fresh).pairs
        return {_pair(names[a], names[b]) for a, b in rows}

    for level in our_pairs.LEVELS:
        milliseconds = 1000 * originals.cpu_seconds / len(names)
        found[level] = Found(milliseconds, search(level, originals, names, 0))
    for edit in EDITS if data.edited else ():
        copies = data.edits(edit)
        both = originals + our_pairs.fingerprints(copies)
        every = names + [f"edit/{file.name}" for file in copies]
        for level in our_pairs.LEVELS:
            found[level].edits[edit] = search(level, both, every, len(copies))
    return found


def _peer(peer: str, data: EditedPhotographs) -> dict[str, Found]:
    """Run the peer's script in its environment.

    Raises:
        CaplabError: it failed; the end of its output is quoted.
    """
    out, script = data.folder / f"{peer}.json", Path(__file__).with_name("peer_pairs.py")
    run_measured([peer_python(peer), script, peer, data.folder, out], cwd=Path("/"))
    record = json.loads(out.read_text())
    milliseconds = 1000 * record["cpu_seconds"] / record["pictures"]

    def near(pairs: list[tuple[str, str, float]], threshold: float) -> set[Pair]:
        sign = 1 if peer == "imagededup" else -1  # bits apart, or a cosine
        return {_pair(a, b) for a, b, value in pairs if sign * value <= sign * threshold and a != b}

    return {
        f"{peer} {words}": Found(
            milliseconds,
            near(record["originals"], threshold),
            {edit: near(pairs, threshold) for edit, pairs in record["edits"].items()},
        )
        for words, threshold in PEERS[peer].items()
    }


def _slug(column: str) -> str:
    return column.replace(" <=", "_").replace(" >=.", "_")


# ---- judging -----------------------------------------------------------------------------------


def _pair(a: str, b: str) -> Pair:
    return (a, b) if a < b else (b, a)


def known_duplicates() -> dict[Pair, str]:
    """Names of two source files -> "same" or "sibling"; see the module."""
    entries = json.loads(Path(__file__).with_name("known_duplicates.json").read_text())
    return {_pair(entry["a"], entry["b"]): entry["kind"] for entry in entries}


def recall(found: Found, edit: str, data: EditedPhotographs, among: Collection[int]) -> float:
    """Share of the edited pictures in `among` that are paired with their original."""
    pairs = found.edits[edit]
    hits = [_pair(data.original(n).name, f"edit/{n:05d}.jpg") in pairs for n in sorted(among)]
    return float(np.mean(hits))


def _kinds(
    pairs: set[Pair], data: EditedPhotographs, known: Mapping[Pair, str]
) -> dict[str, list[Pair]]:
    """The pairs by what they are: "same", "sibling" or "false", as names of source files."""
    kinds: dict[str, list[Pair]] = {"same": [], "sibling": [], "false": []}
    for pair in sorted(pairs):
        numbers = [int(Path(name).stem) for name in pair]
        a, b = (data.files[number].name for number in numbers)
        if numbers[0] != numbers[1]:
            kinds[known.get(_pair(a, b), "false")].append((a, b))
    return kinds


def _table(columns: Mapping[str, Found], data: EditedPhotographs) -> list[str]:
    width = max(len(edit) for edit in EDITS)
    parts: dict[str, Collection[int]] = {
        "edited pictures": data.edited,
        "of them photographs, not charts, drawings or screens": data.photographic,
    }
    lines = []
    for title, among in parts.items():
        if among:
            lines.append(f"recall of {len(among)} {title}, among {len(data.files)}")
            lines.append(" ".join([" " * width, *(column.rjust(15) for column in columns)]))
            for edit in EDITS:
                shares = [recall(found, edit, data, among) for found in columns.values()]
                cells = [f"{share:.3f}".rjust(15) for share in shares]
                lines.append(" ".join([edit.ljust(width), *cells]))
    return lines
