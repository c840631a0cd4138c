"""`caplab ablate --plan OUT --detect 5`: from a pilot to the size of the next study, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_json
from curate.base.telling.words import amount
from pipelines.ablation.declared import Declaration
from pipelines.ablation.judged import SETS_FILE
from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.pictures import read_kept, seconds_in
from pipelines.ablation.results import ALL, Place
from pipelines.statistics.interval import Floats
from pipelines.statistics.plan import Cost, Option, Variances, options, pooled, variances

NOISES = (1, 2, 4)
TIMES = (0.5, 1, 2, 4)
"""Prompts that are tried, in multiples of the pilot's."""
SHOWN = 8


def plan_next(out: Path, declared: Declaration, detect: float) -> str:
    """What the next study needs to claim a difference of `detect` in four of five cases.

    Args:
        out: a finished study, the pilot.
        declared: the tests that the next study will declare; each counts for Holm.
        detect: in the unit shown: points of a share.

    Raises:
        ConfigError: `detect` is no difference, nothing was declared or varies, or the pilot has
            fewer than two seeds.
        DatasetError: `out` is no finished study.
    """
    path = out / "results" / "images.parquet"
    if not path.exists():
        raise DatasetError(f"{out} is no finished study; it has no results/images.parquet.")
    known = metric_of(declared.primary.metric)
    most = known.factor * known.range[1]
    if not 0 < detect < most:
        raise ConfigError(f"--detect {detect:g} is no difference of {known.label} to claim.")
    images = read_kept(path, None, "`caplab ablate` with the study's file writes it anew")
    record = read_json(out / "run.json")
    family = sum(
        len(tests)
        for tests in (
            declared.contrasts,
            declared.no_worse,
            declared.interactions,
            declared.trends,
        )
    )
    if not declared.contrasts:
        raise ConfigError("A plan needs a declared contrast, whose pilot says how it scatters.")
    place = Place(declared.primary.form, declared.primary.wording)
    metric = declared.primary.metric
    found = [pilot(images, a, b, place, metric) for a, b in declared.contrasts]
    parts = pooled([each for each, _ in found])
    clusters = found[0][1]
    arms = len(set(images["arm"].to_pylist()))
    drawn = len(set(images["prompt_id"].to_pylist()))
    cost = Cost(arms, _train_seconds(out, record), _picture_seconds(out, record), drawn / clusters)
    if not (parts.cautious_seed or parts.prompt or parts.both):
        raise ConfigError(
            f"In {out} the difference of {known.label} is the same everywhere, so that it tells "
            f"nothing of how it scatters; a plan needs a pilot of models that learnt something."
        )
    prompts = sorted({max(2, round(clusters * times)) for times in TIMES})
    ways = options(parts, detect / known.factor, prompts, NOISES, family, cost)
    return told(ways, parts, detect, family, declared, cost)


def pilot(images: pa.Table, a: str, b: str, place: Place, metric: str) -> tuple[Variances, int]:
    """Parts of the variance of a - b, and how many clusters of prompts it had.

    Raises:
        ConfigError: the arms share fewer than two seeds, or have no values there.
    """
    if metric not in images.column_names:
        raise ConfigError(f"The pilot has no metric {metric!r}; a plan is made of pictures' ones.")
    cells = [_cells(images, arm, place, metric) for arm in (a, b)]
    shared = [cell for cell in cells[0] if cell in cells[1]]
    seeds = sorted({seed for seed, _, _, _ in shared})
    noises = sorted({noise for *_, noise in shared})
    prompts = sorted({(prompt, intent) for _, prompt, intent, _ in shared})
    if len(seeds) < 2:
        raise ConfigError(f"The pilot's arms {a} and {b} share {len(seeds)} seeds; it takes two.")
    values: Floats = np.full((len(seeds), len(prompts), len(noises)), np.nan)
    places = [{name: n for n, name in enumerate(names)} for names in (seeds, prompts, noises)]
    for seed, prompt, intent, noise in shared:
        cell = (places[0][seed], places[1][prompt, intent], places[2][noise])
        key = (seed, prompt, intent, noise)
        values[cell] = cells[0][key] - cells[1][key]
    try:
        made = variances(values, [intent for _, intent in prompts])
    except ValueError as error:
        raise ConfigError(f"The pilot says nothing of {a} and {b}: {error}") from error
    return made, len({intent for _, intent in prompts})


def _cells(
    images: pa.Table, arm: str, place: Place, metric: str
) -> Mapping[tuple[int, str, str, int], float]:
    """(seed, prompt, intent, noise) -> value, where there is one."""
    rows = images.select(
        ["arm", "seed", "form", "wording", "prompt_id", "intent_id", "noise", metric]
    ).to_pylist()
    return {
        (row["seed"], row["prompt_id"], row["intent_id"], row["noise"]): row[metric]
        for row in rows
        if (row["arm"], row["form"]) == (arm, place.form)
        and place.wording in (ALL, row["wording"])
        and row[metric] is not None
        and not math.isnan(row[metric])
    }


def _train_seconds(out: Path, record: Mapping[str, Any]) -> float:
    """Mean of the pilot's runs."""
    seconds = [
        float(read_json(out / run["run"] / "summary.json")["seconds"]) for run in record["runs"]
    ]
    return float(np.mean(seconds))


def _picture_seconds(out: Path, record: Mapping[str, Any]) -> float:
    """Of drawing a picture and of judging it by every judge; 0 where no part says."""
    judged = [f"judged/{judge['id']}" for judge in record.get("judges", [])]
    folders = {out / run["run"] for run in record["runs"]}
    whole = 0.0
    for place in ("pictures", *judged):
        seconds = pictures = 0.0
        for path in (path for own in folders for path in (own / place).glob("*.parquet")):
            seconds += seconds_in(path)
            pictures += _pictures_in(path)
        whole += seconds / max(pictures, 1)
    return whole


def _pictures_in(path: Path) -> int:
    if path.name != SETS_FILE:
        return int(pq.read_metadata(path).num_rows)
    sets = pq.read_table(path, columns=["set_id", "pictures"]).group_by("set_id")
    return sum(sets.aggregate([("pictures", "max")])["pictures_max"].to_pylist())


def told(
    ways: list[Option],
    parts: Variances,
    detect: float,
    family: int,
    declared: Declaration,
    cost: Cost,
) -> str:
    """The table, and what to do."""
    known = metric_of(declared.primary.metric)
    unit = known.suffix.strip()
    aim = f"{detect:g} {unit}".strip()
    seed, cautious = (known.factor * math.sqrt(v) for v in (parts.seed, parts.cautious_seed))
    prompt, both, noise = (
        known.factor * math.sqrt(v) for v in (parts.prompt, parts.both, parts.noise)
    )
    lines = [
        f"To claim {aim} of {known.label} on {declared.primary.form} prompts in four of five "
        f"studies, at Holm's level among {family} declared tests:",
        "",
        f"{'prompts':>8}{'noises':>8}{'seeds':>8}{'hours':>8}{'cautious seeds':>16}{'hours':>8}",
    ]
    for way in ways[:SHOWN]:
        cells = [f"{way.prompts:>8}{way.noises:>8}", _seeds(way.seeds, 8), _hours(way.hours)]
        cells += [_seeds(way.cautious_seeds, 16), _hours(way.cautious_hours)]
        lines.append("".join(cells))
    counted = "training, drawing and judging" if cost.picture_seconds else "training alone"
    lines += [
        "",
        f"Of a single difference the pilot's {parts.seeds} seeds scatter by {seed:.2g} (standard "
        f"deviation, {unit or known.label}), prompts by {prompt:.2g}, both together by {both:.2g}, "
        f"noises by {noise:.2g}{'' if noise else ' (one a prompt: counted with both)'}. The seeds' "
        f"is uncertain: it lies below {cautious:.2g} with 80% confidence, and the cautious columns "
        f"take that.",
        f"Hours are of {cost.arms} arms' runs one after another, {counted}, as the pilot took.",
        _advice(ways[0], aim),
    ]
    return "\n".join(lines)


def _advice(best: Option, aim: str) -> str:
    if best.seeds is None:
        return (
            f"No number of seeds up to 64 shows {aim}: take more prompts, or a larger difference."
        )
    prompts, noises = amount(best.prompts, "prompt"), amount(best.noises, "noise")
    way = f"{amount(best.seeds, 'seed')}, {prompts} of each form, {noises}"
    if best.cautious_seeds is None:
        safe = "no number of seeds up to 64 is enough should the seeds scatter as they may"
    elif best.cautious_seeds == best.seeds:
        safe = "that is enough also should the seeds scatter as they may"
    else:
        safe = f"{best.cautious_seeds} seeds should they scatter as they may"
    return (
        f"Cheapest: {way}; {safe}. Fix the number beforehand: a study that grows until it claims "
        f"something claims too much."
    )


def _seeds(seeds: int | None, width: int) -> str:
    return f"{'over 64' if seeds is None else seeds:>{width}}"


def _hours(hours: float) -> str:
    return f"{'' if math.isinf(hours) else f'{hours:.1f}':>8}"
