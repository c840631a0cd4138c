"""A peer's pairs of pictures, run by its own Python.

    python peer_pairs.py imagededup|fastdup FOLDER OUT.json

FOLDER holds originals/ and edits/NAME/. OUT gets CPU seconds of a run over the originals, their
number, and pairs of file names with their distance: among the originals, and between each kind of
edits and the originals.

imagededup  perceptual hashes, at most 10 bits apart (its default), one search an edit.
fastdup     its own cosine, one index over the originals and all edits. It looks at 2 neighbours of
            a picture by default; here there are as many copies of one photograph as kinds of
            edits, so it is given enough neighbours to see them all. Its cost is a run over the
            originals alone, with its defaults.
"""

import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

Pairs = list[tuple[str, str, float]]


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def imagededup(folder: Path, edits: list[str]) -> tuple[float, Pairs, dict[str, Pairs]]:
    from imagededup.methods import PHash

    method = PHash(verbose=False)

    def hashes(pictures: Path, prefix: str = "") -> dict[str, str]:
        found = method.encode_images(image_dir=str(pictures), num_enc_workers=0)
        return {prefix + name: value for name, value in found.items() if value}

    def pairs(encodings: dict[str, str]) -> Pairs:
        found = method.find_duplicates(
            encoding_map=encodings, max_distance_threshold=10, scores=True, num_dist_workers=0
        )
        return [(a, b, float(bits)) for a, near in found.items() for b, bits in near if a < b]

    started = cpu()
    originals = hashes(folder / "originals")
    seconds = cpu() - started
    by_edit = {}
    for edit in edits:
        both = pairs({**originals, **hashes(folder / "edits" / edit, "edit/")})
        by_edit[edit] = [pair for pair in both if ("/" in pair[0]) != ("/" in pair[1])]
    return seconds, pairs(originals), by_edit


def fastdup(folder: Path, edits: list[str]) -> tuple[float, Pairs, dict[str, Pairs]]:
    os.environ.update(SENTRY_OPT_OUT="1", FASTDUP_PRODUCTION="0")
    import fastdup  # its start-up is no cost of a picture

    def similar(pictures: Path, **options: object) -> list[tuple[Path, Path, float]]:
        with tempfile.TemporaryDirectory() as work:
            found = fastdup.create(work_dir=work, input_dir=str(pictures))
            found.run(overwrite=True, print_summary=False, num_threads=1, **options)
            table = found.similarity()
        names = [table[f"filename_{side}"].map(Path) for side in ("from", "to")]
        return list(zip(*names, table["distance"].tolist(), strict=True))

    started = cpu()
    originals = similar(folder / "originals")
    seconds = cpu() - started
    by_edit: dict[str, Pairs] = {name: [] for name in edits}
    for a, b, value in similar(folder, nearest_neighbors_k=len(edits) + 10) if edits else ():
        for one, other in ((a, b), (b, a)):
            if one.parent.name in by_edit and other.parent.name == "originals":
                by_edit[one.parent.name].append((f"edit/{one.name}", other.name, value))
    return seconds, [(a.name, b.name, value) for a, b, value in originals], by_edit


def main(peer: str, folder: Path, out: Path) -> None:
    names = sorted(path.name for path in (folder / "edits").glob("*"))
    seconds, originals, edits = {"imagededup": imagededup, "fastdup": fastdup}[peer](folder, names)
    record: dict[str, Any] = {
        "cpu_seconds": seconds,
        "pictures": len(list((folder / "originals").iterdir())),
        "originals": originals,
        "edits": edits,
    }
    out.write_text(json.dumps(record))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
