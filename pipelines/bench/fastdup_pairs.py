"""fastdup's pairs, run by its own Python: one index over the originals and all edits.

    python fastdup_pairs.py FOLDER OUT.json

As imagededup_pairs.py, with fastdup's similarity (its own cosine) in place of a distance. It looks
at 2 neighbours of a picture by default; here there are as many copies of one photograph as kinds
of edits, so it is given enough neighbours to see them all. Its cost is a run over the originals
alone, with its defaults.
"""

import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["SENTRY_OPT_OUT"] = "1"
os.environ["FASTDUP_PRODUCTION"] = "0"


def cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def similar(pictures: Path, **options: object) -> list[tuple[str, str, float]]:
    import fastdup

    with tempfile.TemporaryDirectory() as work:
        found = fastdup.create(work_dir=work, input_dir=str(pictures))
        found.run(overwrite=True, print_summary=False, num_threads=1, **options)
        table = found.similarity()
    names = [table[f"filename_{side}"].map(str) for side in ("from", "to")]
    return list(zip(*(side.tolist() for side in names), table["distance"].tolist(), strict=True))


def main(folder: Path, out: Path) -> None:
    import fastdup  # noqa: F401  (its start-up is no cost of a picture)

    started = cpu()
    alone = similar(folder / "originals")
    record: dict[str, Any] = {
        "cpu_seconds": cpu() - started,
        "pictures": len(list((folder / "originals").iterdir())),
        "originals": sorted(
            {(*sorted(Path(name).name for name in (a, b)), value) for a, b, value in alone}
        ),
        "edits": {},
    }
    edits = [path.name for path in sorted((folder / "edits").glob("*"))]
    if edits:
        everything = similar(folder, nearest_neighbors_k=len(edits) + 10)
        record["edits"] = {name: [] for name in edits}
        for a, b, value in everything:
            for one, other in ((Path(a), Path(b)), (Path(b), Path(a))):
                if one.parent.name in record["edits"] and other.parent.name == "originals":
                    record["edits"][one.parent.name].append((f"edit/{one.name}", other.name, value))
    out.write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
