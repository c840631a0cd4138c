"""`caplab bench score`: the same CLIP and the same pairs through us, clip-retrieval, Data-Juicer.

Everybody runs as users run it, from the start of its process to its last written file, on the same
JPEGs (pipelines.bench.score_pairs) with the same weights (pipelines.bench.score_model); CPU seconds
are those of the whole process tree. Our run also computes all other default scores, hashes and
thumbnails; the peers compute CLIP alone.

Throughput is a share of the bare model forward on all CPUs (pipelines.bench.score_forward).
"Without start-up" takes the difference of two runs of different length; "whole run" does not.
Similarities of all must agree, or the speeds would not be those of one function.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bench.figures import Figure
from pipelines.bench.peers import peer_version
from pipelines.bench.processes import ProcessCost, run_measured
from pipelines.bench.score_model import ModelFiles, write_model
from pipelines.bench.score_pairs import Pairs, pack_pairs
from pipelines.bench.score_peers import (
    ENVIRONMENT,
    Similarities,
    our_similarities,
    run_clip_retrieval,
    run_data_juicer,
    run_ours,
)

ROWS_PER_SHARD = 500
# clip-retrieval never ends where it has fewer shards than loaders.
_SHARDS = 4
WARM_PAIRS = 64
PRECISIONS = ("fp32", "bf16")
_CPU_GOAL = 1 / 3
_THROUGHPUT_GOAL = 0.9
# float16 embeddings and another decoder's rounding move a cosine by less than this.
_AGREEMENT = {"fp32": 2e-3, "bf16": 5e-3}

Say = Callable[[str], Any]


def score_figures(
    folders: Sequence[Path], limit: int, out: Path | None, say: Say = print
) -> list[Figure]:
    """Run everybody once on `limit` pairs; about 15 minutes for 2,000 on two cores.

    Raises:
        ConfigError: the folders do not hold so many pairs.
        CaplabError: somebody's command failed; its words are quoted.
    """
    work = (out or Path(tempfile.mkdtemp(prefix="caplab-bench-score-"))).absolute()
    say(f"packing pairs and weights into {work}")
    rows = max(1, min(ROWS_PER_SHARD, limit // _SHARDS))
    pairs = pack_pairs(folders, limit, work / "pairs", rows)
    warm = pack_pairs(folders, WARM_PAIRS, work / "warm", WARM_PAIRS // _SHARDS)
    model = write_model(work / "model")
    peers = {
        f"clip-retrieval {peer_version('clip-retrieval', 'clip-retrieval')}": run_clip_retrieval,
        f"data-juicer {peer_version('data-juicer', 'py-data-juicer')}": run_data_juicer,
    }
    runs = work / "runs"
    say(f"everybody on {WARM_PAIRS} pairs, to warm up")
    for run in peers.values():
        run(warm, model, runs)
    for precision in PRECISIONS:
        run_ours(warm, model, runs, precision)
    costs: dict[str, ProcessCost] = {}
    theirs: dict[str, Similarities] = {}
    for name, run in peers.items():
        costs[name], theirs[name] = run(pairs, model, runs)
        say(f"{name}: {_words(costs[name])}")
    figures = []
    for precision in PRECISIONS:
        short, _ = run_ours(warm, model, runs, precision)
        cost, dataset = run_ours(pairs, model, runs, precision)
        say(f"caplab score in {precision}: {_words(cost)}; {WARM_PAIRS} pairs: {_words(short)}")
        bare = _bare_forward(pairs, model, precision)
        say(f"bare forward in {precision}, seconds: {bare}")
        figures += _cpu(precision, cost, costs, limit)
        figures += _throughput(precision, cost, short, bare, limit, len(warm.keys))
        ours = our_similarities(dataset)
        for name, similarities in theirs.items():
            figures += _agreement(precision, ours, similarities, name)
    return [*figures, *_peers(costs, limit)]


def _words(cost: ProcessCost) -> str:
    return f"{cost.wall_seconds:.1f} s, {cost.cpu_seconds:.1f} CPU-s"


def _bare_forward(pairs: Pairs, model: ModelFiles, precision: str) -> dict[str, float]:
    command = [sys.executable, "-m", "pipelines.bench.score_forward", model.name]
    command += [str(model.safetensors), str(pairs.jsonl), "--precision", precision]
    cost = run_measured(command, env=ENVIRONMENT)
    seconds: dict[str, float] = json.loads(cost.output.strip().splitlines()[-1])
    return seconds


def _cpu(
    precision: str, cost: ProcessCost, peers: dict[str, ProcessCost], pairs: int
) -> list[Figure]:
    """CPU a pair beside the better peer, and our memory beside its."""
    better = min(peers, key=lambda name: peers[name].cpu_seconds)
    return [
        Figure(
            f"score/{precision}/cpu_per_pair",
            round(1e3 * cost.cpu_seconds / pairs, 2),
            "CPU-ms",
            better,
            round(1e3 * peers[better].cpu_seconds / pairs, 2),
            _CPU_GOAL,
        ),
        Figure(
            f"score/{precision}/peak_memory",
            cost.peak_memory_bytes >> 20,
            "MiB",
            better,
            peers[better].peak_memory_bytes >> 20,
        ),
    ]


def _throughput(
    precision: str,
    cost: ProcessCost,
    short: ProcessCost,
    bare: dict[str, float],
    pairs: int,
    short_pairs: int,
) -> list[Figure]:
    """Pairs a second, with and without start-up, as shares of both bare forwards."""
    speeds = {
        "whole_run": pairs / cost.wall_seconds,
        "without_start_up": (pairs - short_pairs)
        / max(cost.wall_seconds - short.wall_seconds, 1e-9),
    }
    limits = {
        "77_tokens": 1 / (bare["picture"] + bare["padded_text"]),
        "trimmed_tokens": 1 / (bare["picture"] + bare["trimmed_text"]),
    }
    return [
        Figure(
            f"score/{precision}/pairs_per_second/{speed}/{limit}",
            round(speeds[speed], 2),
            "pairs/s",
            f"bare forward, {limit.replace('_', ' ')}",
            round(limits[limit], 2),
            _THROUGHPUT_GOAL,
            "higher",
        )
        for speed in speeds
        for limit in limits
    ]


def _agreement(precision: str, ours: Similarities, theirs: Similarities, peer: str) -> list[Figure]:
    keys = sorted(ours.keys() & theirs.keys())
    a, b = (np.array([some[key] for key in keys]) for some in (ours, theirs))
    name = f"score/{precision}/agreement/{peer.split()[0]}"
    missing = len(ours.keys() ^ theirs.keys())
    return [
        Figure(f"{name}/pairs_of_one_alone", missing, "pairs", goal=0),
        Figure(
            f"{name}/max_difference",
            float(f"{np.abs(a - b).max():.3g}"),
            "cosine",
            goal=_AGREEMENT[precision],
        ),
        Figure(f"{name}/spread", float(f"{b.std():.3g}"), "cosine"),
        Figure(f"{name}/pearson", round(float(np.corrcoef(a, b)[0, 1]), 6), "r"),
    ]


def _peers(costs: dict[str, ProcessCost], pairs: int) -> list[Figure]:
    """What each peer cost, so that the ratios can be checked."""
    figures = []
    for name, cost in costs.items():
        short = f"score/{name.split()[0]}"
        cpu = round(1e3 * cost.cpu_seconds / pairs, 2)
        figures.append(Figure(f"{short}/cpu_per_pair", cpu, "CPU-ms"))
        speed = round(pairs / cost.wall_seconds, 2)
        figures.append(Figure(f"{short}/pairs_per_second/whole_run", speed, "pairs/s"))
        figures.append(Figure(f"{short}/peak_memory", cost.peak_memory_bytes >> 20, "MiB"))
    return figures
