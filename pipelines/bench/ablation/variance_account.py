"""What of a result comes from which seed, measured on a dataset of the synthetic world.

`python -m pipelines.bench.ablation.variance_account --dataset DIR --truth FILE --out DIR`: the
dataset is the demo's (`caplab demo`), and FILE the world/truth.parquet of its scenes.

Two arms are trained with every combination of a Latin square of seeds of the weights, of the data's
order and of the training noise: levels x levels runs an arm. All draw the same prompts from the
same sampling noises, and the world's judge looks at them. Every combination is a study of one seed
(`caplab ablate`), so that what is there is kept, and the same command continues.

OUT/
  runs/                   training runs, shared
  studies/W-D-N/          the study of weights_seed W, data_seed D and noise_seed N
  variance.parquet        arm, part, variance, low, high, share, df; `pairing` has its ratio
  variance.md             the same for people; --results puts both elsewhere
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import CaplabError
from curate.base.files import atomic_path
from curate.base.settings import load_settings
from pipelines.ablation.metrics import metric
from pipelines.ablation.run import ablate
from pipelines.ablation.settings import AblateSettings
from pipelines.demo.demo import SELECTION
from pipelines.statistics.interval import Floats
from pipelines.statistics.variance import Levels, account, latin_square, pairing

ARMS = {"descriptive": {"descriptive": 0.95, "alt": 0.05}, "alt": {"alt": 1.0}}
STUDY: dict[str, Any] = {
    "arms": ARMS,
    "contrasts": [],
    "selection": SELECTION,
    "noises": 4,
    "train": {"model": "world-small"},
    "prompts": {"scenes": 96, "forms": ["descriptive"], "wordings": ["captioner"]},
    "runner": "local",
}
SMALL: dict[str, Any] = {
    "noises": 2,
    "train": {"model": "tiny-test", "resolution": 32, "steps": 3},
    "allow_unknown_words": True,
}
METRIC = "object_hit"
PARTS = {
    "weights": "initial weights",
    "order": "order of the data",
    "noise": "training noise",
    "rest": "the three together",
    "sampling": "sampling noise that all share",
    "drawing": "sampling noise of a run",
    "pairing": "variance unpaired / paired by seed",
}
ACCOUNT = pa.schema(
    [
        ("arm", pa.string()),  # "A - B" of the paired difference
        ("part", pa.string()),
        *((name, pa.float64()) for name in ("variance", "low", "high", "share")),
        ("df", pa.int64()),
    ]
)


def variance_account(
    dataset: Path, out: Path, levels: int, changes: dict[str, Any] | None = None
) -> pa.Table:
    """Train what is missing of 2 x levels x levels runs, and take their results apart.

    Args:
        changes: of the study.

    Raises:
        ConfigError, DatasetError, StageError: as `pipelines.ablation.run.ablate`.
    """
    square = latin_square(levels)
    found: dict[str, list[Floats]] = {name: [] for name in ARMS}
    study = {**STUDY, **(changes or {})}
    for seeds in square.tolist():
        place = out / "studies" / "-".join(map(str, seeds))
        ablate(dataset, place, study_of(seeds, out, study))
        images = pq.read_table(place / "results" / "images.parquet")
        for arm, results in found.items():
            results.append(_by_noise(images, arm))
    return _table(square, {arm: np.stack(results) for arm, results in found.items()})


def study_of(seeds: Sequence[int], out: Path, study: Mapping[str, Any]) -> AblateSettings:
    """The study of one combination of seeds: of the weights, the data's order, the training noise.

    The noise is that of the study's own seed, since a study has to leave one of the three free.
    """
    weights, order, noise = seeds
    fixed = {**study["train"], "weights_seed": weights, "data_seed": order}
    own = {**study, "train": fixed, "seeds": [noise], "runs": str(out / "runs")}
    return load_settings(AblateSettings, None, own)


def _by_noise(images: pa.Table, arm: str) -> Floats:
    """`(N,)` means over the prompts of each sampling noise."""
    # Undefined is a prompt, whatever was drawn, and then in every run.
    defined = pc.invert(pc.is_nan(images[METRIC]))
    of_arm = images.filter(pc.and_(pc.equal(images["arm"], arm), defined))
    means = of_arm.group_by("noise").aggregate([(METRIC, "mean")]).sort_by("noise")
    return np.asarray(means[f"{METRIC}_mean"].to_numpy(), dtype=np.float64)


def _table(levels: Levels, values: dict[str, Floats]) -> pa.Table:
    """Rows of ACCOUNT for both arms' and for their difference's `(R, N)` values, and the saving."""
    (first, a), (second, b) = values.items()
    name = f"{first} - {second}"
    rows = [
        {"arm": arm, "part": part.name, **{n: v for n, v in vars(part).items() if n != "name"}}
        for arm, own in {**values, name: a - b}.items()
        for part in account(levels, own)
    ]
    saving = pairing(levels, a.mean(1), b.mean(1))
    told = {"variance": saving.ratio, "low": saving.low, "high": saving.high}
    return pa.Table.from_pylist([*rows, {"arm": name, "part": "pairing", **told}], ACCOUNT)


def markdown(table: pa.Table, levels: int, command: str) -> str:
    """The account for people: standard deviations in the metric's unit."""
    known = metric(METRIC)
    runs = len(ARMS) * levels**2
    lines = [
        "# Where a result's variance comes from",
        "",
        f"`{command}`",
        "",
        f"{runs} runs: two arms, and a Latin square of {levels} seeds each of weights, order and "
        f"training noise. {known.label}, as standard deviations in {known.suffix.strip()} with 95% "
        f"intervals, of one run and one sampling noise; limits of few levels are wide. "
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {platform.system()}.",
        "",
        "| arm | part | standard deviation | 95% interval | share of variance |",
        "|---|---|---|---|---|",
    ]
    saving = ""
    for row in table.to_pylist():
        if row["part"] == "pairing":
            saving = (
                f"Arms that share their seeds need {row['variance']:.2f} "
                f"[{row['low']:.2f}, {row['high']:.2f}] times fewer runs than arms of other seeds "
                f"(variance of a difference unpaired over paired; above 1 pairing helps)."
            )
            continue
        size, low, high = (
            f"{known.factor * np.sqrt(row[name]):.2f}" for name in ("variance", "low", "high")
        )
        part = PARTS[row["part"]]
        share = "none" if np.isnan(row["share"]) else f"{100 * row['share']:.0f}%"
        lines.append(f"| {row['arm']} | {part} | {size} | [{low}, {high}] | {share} |")
    return "\n".join([*lines, "", saving, ""])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True, help="scenes that are not to be asked")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="where the table goes; default: OUT")
    parser.add_argument("--levels", type=int, default=5, help="seeds of each kind; from 3 on")
    parser.add_argument("--small", action="store_true", help="a trial of three steps a run")
    given = parser.parse_args()
    if given.levels < 3:
        parser.error("--levels is 3 or more; two leave no freedom to tell the parts apart")
    changes = SMALL if given.small else {}
    scenes = 8 if given.small else STUDY["prompts"]["scenes"]
    prompts = {**STUDY["prompts"], "scenes": scenes, "exclude_scenes": str(given.truth)}
    try:
        out = given.out.absolute()
        table = variance_account(given.dataset, out, given.levels, {**changes, "prompts": prompts})
    except CaplabError as error:
        parser.exit(1, f"{error}\n")
    results = given.results or out
    options = f"--levels {given.levels}{' --small' if given.small else ''}"
    module = "pipelines.bench.ablation.variance_account"
    command = f"python -m {module} --dataset DIR --truth FILE --out DIR {options}"
    text = markdown(table, given.levels, command)
    with atomic_path(results / "variance.parquet") as temporary:
        pq.write_table(table, temporary)
    with atomic_path(results / "variance.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
