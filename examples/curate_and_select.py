"""From a folder of pictures with texts beside them to a selection, from a notebook.

    python examples/curate_and_select.py PICTURES data/mine

Pictures are stored and scored; every row that is not has its reason; the selection is SQL. The CLIP
model here is the demo's, which runs anywhere and knows nothing of photographs.
"""

import sys
from collections import Counter

from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from pipelines.commands.curate import CurateSettings, curate
from pipelines.world.weights import clip_dir

RULE = "width >= 64 and text_words >= 3"


def main(pictures: str, out: str) -> list[str]:
    settings = CurateSettings(clip_model=f"local-dir:{clip_dir()}", clip_pretrained=None)
    curate(pictures, out, settings)  # again: only what is missing

    dataset = Dataset.open(out)
    for shard in dataset.shards():
        reasons = Counter(dataset.read_table("samples", shard).column("reason").to_pylist())
        print(shard, dict(reasons))

    # Scores stay, so another rule costs one scan and downloads nothing.
    print(select(dataset, SelectSettings(name="readable", where=RULE)).text())
    return list(dataset.selection_keys("readable"))


if __name__ == "__main__":
    print(len(main(*sys.argv[1:3])), "samples selected")
