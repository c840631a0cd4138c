"""imagededup's pairs, run by its own Python: perceptual hashes, one search an edit.

    python imagededup_pairs.py FOLDER OUT.json

FOLDER holds originals/ and edits/NAME/. OUT gets CPU seconds of hashing the originals, their
number, and pairs of file names with their distance (at most 10, the default): among the originals,
and between each kind of edits and the originals.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any


def main(folder: Path, out: Path) -> None:
    from imagededup.methods import PHash

    method = PHash(verbose=False)

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)

    def hashes(pictures: Path) -> dict[str, str]:
        found = method.encode_images(image_dir=str(pictures), num_enc_workers=0)
        return {name: value for name, value in found.items() if value}

    def pairs(encodings: dict[str, str]) -> list[tuple[str, str, int]]:
        found = method.find_duplicates(
            encoding_map=encodings, max_distance_threshold=10, scores=True, num_dist_workers=0
        )
        return [(a, b, int(distance)) for a, near in found.items() for b, distance in near if a < b]

    started = cpu()
    originals = hashes(folder / "originals")
    seconds = cpu() - started
    record: dict[str, Any] = {
        "cpu_seconds": seconds,
        "pictures": len(originals),
        "originals": pairs(originals),
        "edits": {},
    }
    for edit in sorted((folder / "edits").glob("*")):
        both = {**originals, **{f"edit/{name}": h for name, h in hashes(edit).items()}}
        record["edits"][edit.name] = [
            pair for pair in pairs(both) if ("/" in pair[0]) != ("/" in pair[1])
        ]
    out.write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
