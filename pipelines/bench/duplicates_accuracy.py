"""`caplab bench duplicates`: recall of edited photographs, false pairs and cost, beside the peers.

Recall of an edit: the share of edited photographs that are paired with their original, each kind of
edit searched on its own among all originals. A false pair is one of two photographs that are no
copies: every pair that any setting of ours found among the originals was looked at, and those that
are true stand, by file name and with a reason, in known_duplicates.json. So do "siblings": one
drawing or one page in two versions that differ in a label or a number, which a person may or may
not want to drop; pairs of them are counted apart. Recall is given for all edited pictures and for
those that are photographs by a rule that no tool's answer enters (`is_photographic`).
"""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from curate.base.errors import CaplabError
from pipelines.bench import our_pairs
from pipelines.bench.edited_photographs import EditedPhotographs, write_edited_photographs
from pipelines.bench.figures import Figure, render
from pipelines.bench.peers import peer_python, peer_version
from pipelines.bench.photo_edits import EDITS
from pipelines.children import tied

GOAL, GOAL_LARGE_CROP = 0.99, 0.9
PEERS = {"imagededup": "imagededup", "fastdup": "fastdup"}
"""Peer's environment -> its package."""
_KNOWN = Path(__file__).parent / "known_duplicates.json"
_HERE = Path(__file__).parent
_SETTINGS: Mapping[str, tuple[str, float]] = {
    "imagededup <=10": ("imagededup", 10),
    "imagededup <=8": ("imagededup", 8),
    "fastdup >=.96": ("fastdup", 0.96),
    "fastdup >=.90": ("fastdup", 0.90),
}
"""Column -> peer and threshold. imagededup's default is 10; fastdup lists pairs from 0.9 on and
joins components at 0.96."""

Pairs = set[tuple[str, str]]
"""Names of two files, the lesser first; an edited copy is "edit/NAME"."""


@dataclass
class Found:
    """What one tool at one setting found."""

    cpu_ms: float
    """A picture, over the originals."""
    originals: Pairs
    edits: dict[str, Pairs] = field(default_factory=dict)


def duplicate_figures(
    photographs: Sequence[Path],
    limit: int = 200,
    seed: int = 0,
    peers: Sequence[str] = tuple(PEERS),
    out: Path | None = None,
) -> tuple[list[Figure], str]:
    """All figures, and the table of recalls for a person.

    Args:
        photographs: folders of pictures; those that are held out of training may be edited.
        limit: how many to edit; 0 for false pairs and costs alone.
    """
    with tempfile.TemporaryDirectory(prefix="caplab-duplicates-", dir=out) as folder:
        data = write_edited_photographs(Path(folder), list(photographs), limit, seed)
        columns = dict(_ours(data))
        for peer in peers:
            columns |= _peer(peer, data)
    figures = _recalls(columns, data) + _false_pairs(columns, data) + _costs(columns, peers)
    table = _table(columns, data) if data.edited else ""
    return figures, table + _unknown_lines(columns, data)


# ---- searching ---------------------------------------------------------------------------------


def _ours(data: EditedPhotographs) -> dict[str, Found]:
    names = [file.name for file in data.originals]
    originals = our_pairs.fingerprints(data.originals)
    milliseconds = 1000 * originals.cpu_seconds / len(names)
    found = {}
    for level in our_pairs.LEVELS:
        with tempfile.TemporaryDirectory() as scratch:
            rows = our_pairs.pairs(originals, level, Path(scratch)).pairs
        found[level] = Found(milliseconds, {_pair(names[a], names[b]) for a, b in rows})
    for edit in EDITS if data.edited else ():
        files = data.edits(edit)
        both = originals + our_pairs.fingerprints(files)
        every = names + [f"edit/{file.name}" for file in files]
        for level in our_pairs.LEVELS:
            with tempfile.TemporaryDirectory() as scratch:
                rows = our_pairs.pairs(both, level, Path(scratch), fresh=len(files)).pairs
            found[level].edits[edit] = {_pair(every[a], every[b]) for a, b in rows}
    return found


def _peer(peer: str, data: EditedPhotographs) -> dict[str, Found]:
    """Runs the peer's script in its environment.

    Raises:
        CaplabError: it failed; the end of its output is quoted.
    """
    out = data.folder / f"{peer}.json"
    command = [peer_python(peer), _HERE / f"{peer}_pairs.py", data.folder, out]
    done = subprocess.run(tied(command), capture_output=True, text=True, errors="replace", cwd="/")
    if done.returncode:
        raise CaplabError(f"{peer} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    record = json.loads(out.read_text())
    milliseconds = 1000 * record["cpu_seconds"] / record["pictures"]

    def near(pairs: list[tuple[str, str, float]], threshold: float) -> Pairs:
        lower = peer == "imagededup"
        return {
            _pair(a, b)
            for a, b, value in pairs
            if (value <= threshold if lower else value >= threshold) and a != b
        }

    return {
        column: Found(
            milliseconds,
            near(record["originals"], threshold),
            {edit: near(pairs, threshold) for edit, pairs in record["edits"].items()},
        )
        for column, (name, threshold) in _SETTINGS.items()
        if name == peer
    }


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


# ---- judging -----------------------------------------------------------------------------------


def known_duplicates() -> dict[tuple[str, str], str]:
    """Names of two source files -> "same" or "sibling"; see the module."""
    entries = json.loads(_KNOWN.read_text())
    return {_pair(entry["a"], entry["b"]): entry["kind"] for entry in entries}


def recall(
    found: Found, edit: str, data: EditedPhotographs, among: Collection[int] | None = None
) -> float:
    """Share of the edited pictures (of those in `among`) that are paired with their original."""
    pairs = found.edits.get(edit, set())
    hits = [
        _pair(data.original(number).name, f"edit/{number:05d}.jpg") in pairs
        for number in data.edited
        if among is None or number in among
    ]
    return float(np.mean(hits)) if hits else math.nan


def _recalls(columns: Mapping[str, Found], data: EditedPhotographs) -> list[Figure]:
    figures = []
    for edit in EDITS if data.edited else ():
        for column, found in columns.items():
            goal = None
            if column == "near":
                large = edit.startswith("crop") and int(edit.rsplit("_", 1)[1]) > 8
                goal = GOAL_LARGE_CROP if large else GOAL
            value = round(recall(found, edit, data), 4)
            name = f"duplicates/{_slug(column)}/{edit}/recall"
            figures.append(Figure(name, value, "share", goal=goal, better="higher"))
            if data.photographic:
                value = round(recall(found, edit, data, data.photographic), 4)
                figures.append(
                    Figure(f"{name}_photographs", value, "share", goal=goal, better="higher")
                )
    return figures


def _kinds(
    pairs: Pairs, data: EditedPhotographs, known: Mapping[tuple[str, str], str]
) -> dict[str, list[tuple[str, str]]]:
    """The pairs by what they are: "same", "sibling" or "false", as names of source files."""
    kinds: dict[str, list[tuple[str, str]]] = {"same": [], "sibling": [], "false": []}
    for pair in sorted(pairs):
        numbers = [int(Path(name).stem) for name in pair]
        a, b = (data.files[number].name for number in numbers)
        if numbers[0] != numbers[1]:
            kinds[known.get(_pair(a, b), "false")].append((a, b))
    return kinds


def _false_pairs(columns: Mapping[str, Found], data: EditedPhotographs) -> list[Figure]:
    known = known_duplicates()
    figures = [Figure("duplicates/photographs", len(data.files), "files")]
    for column, found in columns.items():
        name = f"duplicates/{_slug(column)}"
        kinds = _kinds(found.originals, data, known)
        goal = 0.0 if column == "near" else None
        figures.append(Figure(f"{name}/false_pairs", len(kinds["false"]), "pairs", goal=goal))
        figures.append(Figure(f"{name}/sibling_pairs", len(kinds["sibling"]), "pairs"))
        figures.append(Figure(f"{name}/same_picture_pairs", len(kinds["same"]), "pairs"))
        if data.edited:
            crossed = [len(_kinds(pairs, data, known)["false"]) for pairs in found.edits.values()]
            figures.append(
                Figure(f"{name}/false_pairs_with_edits", sum(crossed), "pairs", goal=goal)
            )
    return figures


def _costs(columns: Mapping[str, Found], peers: Sequence[str]) -> list[Figure]:
    ours = columns["near"].cpu_ms
    figures = []
    for peer in peers:
        theirs = next(columns[c].cpu_ms for c, (name, _) in _SETTINGS.items() if name == peer)
        figures.append(
            Figure(
                f"duplicates/cpu_per_image/{peer}",
                round(ours, 3),
                "ms",
                peer=f"{peer} {peer_version(peer, PEERS[peer])}",
                peer_value=round(theirs, 3),
                goal=1.0,
            )
        )
    return figures or [Figure("duplicates/cpu_per_image", round(ours, 3), "ms")]


# ---- printing ----------------------------------------------------------------------------------


def _slug(column: str) -> str:
    return column.replace(" <=", "_").replace(" >=.", "_")


def _table(columns: Mapping[str, Found], data: EditedPhotographs) -> str:
    width = max(len(edit) for edit in EDITS)
    parts: list[tuple[str, Collection[int]]] = [
        ("edited pictures", data.edited),
        ("of them photographs, not charts, drawings or screens", data.photographic),
    ]
    lines = []
    for title, among in parts:
        if not among:
            continue
        lines.append(f"recall of {len(among)} {title}, among {len(data.files)}")
        lines.append(" ".join([" " * width, *(column.rjust(15) for column in columns)]))
        for edit in EDITS:
            shares = [recall(found, edit, data, among) for found in columns.values()]
            cells = [f"{share:.3f}".rjust(15) for share in shares]
            lines.append(" ".join([edit.ljust(width), *cells]))
    return "\n".join(lines) + "\n"


def _unknown_lines(columns: Mapping[str, Found], data: EditedPhotographs) -> str:
    """Every false pair of ours by name, so that somebody can look."""
    known = known_duplicates()
    lines = []
    for level in our_pairs.LEVELS:
        found = columns[level]
        groups = {"originals": found.originals, **found.edits}
        for where, pairs in groups.items():
            for a, b in _kinds(pairs, data, known)["false"]:
                lines.append(f"false pair ({level}, {where}): {a} | {b}")
    return "".join(f"{line}\n" for line in lines)


def print_duplicates(
    photographs: Sequence[Path],
    published: Path | None,
    limit: int,
    seed: int,
    peers: Sequence[str],
    out: Path | None,
    as_json: bool,
) -> str:
    """What the command prints."""
    figures, text = duplicate_figures(photographs, limit, seed, peers, out)
    if published is not None:
        from pipelines.bench.published_edits import published_figures

        figures += published_figures(published)
    if as_json:
        return render(figures, True)
    # The table says them already.
    shown = [f for f in figures if not (f.name.count("/") == 3 and "/recall" in f.name)]
    return f"{text}\n{render(shown)}"
