"""Do longer captions teach a small model more? The same pictures and steps, three seeds an arm.

    python examples/ablation_from_python.py DATASET study

DATASET has pictures with captions of the kinds "alt" and "descriptive". On the demo's
(`caplab demo`, then DATASET = runs/demo/dataset) it takes minutes on two cores.
"""

import sys

from curate.base.files import read_json
from pipelines.ablation.run import ablate
from pipelines.ablation.settings import AblateSettings

ARMS = {"alt": {"alt": 1.0}, "descriptive": {"descriptive": 0.95, "alt": 0.05}}


def main(dataset: str, out: str, steps: int = 2000, scenes: int = 96, words: bool = False):
    settings = AblateSettings(
        arms=ARMS,
        contrasts=(("descriptive", "alt"),),  # what is claimed is declared before the run
        seeds=(0, 1, 2),
        train={"model": "world-small", "steps": steps, "validation_samples": 0},
        prompts={"scenes": scenes},
        allow_unknown_words=words,  # else refused where the captions lack the prompts' words
        primary={"metric": "object_hit", "form": "short"},
    )
    summary = ablate(dataset, out, settings)
    print(summary.text())
    for limit in read_json(summary.directory / "run.json")["limits"]:
        print("-", limit)
    return summary.headline


if __name__ == "__main__":
    main(*sys.argv[1:3])
