"""`caplab bench score`: the same CLIP and the same pairs through us, clip-retrieval, Data-Juicer.

Everybody runs as users run it, from the start of its process to its last written file, on the same
JPEGs with the same weights (pipelines.bench.score.random_clip): clip-retrieval reads our tars
(img2dataset's layout), Data-Juicer a JSONL with the same JPEGs as files. CPU seconds are those of
the whole process tree. Our run also computes all other default scores, hashes and thumbnails; the
peers compute CLIP alone.

Throughput is a share of the bare model forward on all CPUs (pipelines.bench.score.bare_forward).
"Without start-up" takes the difference of two runs of different length; "whole run" does not.
Similarities of all must agree, or the speeds would not be those of one function.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curate.base.progress import tell
from pipelines.bench.common.figures import Figure, Figures, work_folder
from pipelines.bench.common.packed_pictures import pack_pairs
from pipelines.bench.common.peers import peer_version
from pipelines.bench.common.processes import ProcessCost, run_measured
from pipelines.bench.score.random_clip import write_model
from pipelines.bench.score.runs import (
    ENVIRONMENT,
    Similarities,
    run_clip_retrieval,
    run_data_juicer,
    run_ours,
)

ROWS_PER_SHARD = 500
_SHARDS = 4  # clip-retrieval never ends where it has fewer shards than loaders
WARM_PAIRS = 64
PRECISIONS = ("fp32", "bf16")
# float16 embeddings and another decoder's rounding move a cosine by less than this.
_AGREEMENT = {"fp32": 2e-3, "bf16": 5e-3}


def score_figures(folders: Sequence[Path], limit: int, out: Path | None) -> list[Figure]:
    """Run everybody once on `limit` pairs; about 15 minutes for 2,000 on two cores.

    Raises:
        ConfigError: the folders do not hold so many pairs.
        CaplabError: somebody's command failed; its words are quoted.
    """
    work = work_folder(out)
    tell(f"packing pairs and weights into {work}")
    rows = max(1, min(ROWS_PER_SHARD, limit // _SHARDS))
    pairs = pack_pairs(folders, limit, work / "pairs", rows)
    warm = pack_pairs(folders, WARM_PAIRS, work / "warm", WARM_PAIRS // _SHARDS)
    model, runs = write_model(work / "model"), work / "runs"
    peers = {
        peer_version("clip-retrieval"): run_clip_retrieval,
        peer_version("data-juicer", "py-data-juicer"): run_data_juicer,
    }
    tell(f"everybody on {WARM_PAIRS} pairs, to warm up")
    for run in peers.values():
        run(warm, model, runs)
    for precision in PRECISIONS:
        run_ours(warm, model, runs, precision)
    costs: dict[str, ProcessCost] = {}
    theirs: dict[str, Similarities] = {}
    for name, run in peers.items():
        costs[name], theirs[name] = run(pairs, model, runs)
        tell(f"{name}: {_words(costs[name])}")
    figures: list[Figure] = []
    for precision in PRECISIONS:
        short, _ = run_ours(warm, model, runs, precision)
        cost, ours = run_ours(pairs, model, runs, precision)
        tell(f"caplab score in {precision}: {_words(cost)}; {WARM_PAIRS} pairs: {_words(short)}")
        command = [sys.executable, "-m", "pipelines.bench.score.bare_forward", model.name]
        command += [str(model.safetensors), str(pairs.directory), precision]
        bare = json.loads(run_measured(command, env=ENVIRONMENT).output.splitlines()[-1])
        tell(f"bare forward in {precision}, seconds: {bare}")
        figures += costs_beside(precision, cost, costs, limit)
        figures += throughput(precision, cost, short, bare, limit, WARM_PAIRS)
        for name, similarities in theirs.items():
            figures += agreement(precision, ours, similarities, name)
    for name, cost in costs.items():  # what each peer cost, so that the ratios can be checked
        alone = Figures(f"score/{name.split()[0]}")
        alone.add("cpu_per_pair", 1e3 * cost.cpu_seconds / limit, "CPU-ms")
        alone.add("pairs_per_second/whole_run", limit / cost.wall_seconds, "pairs/s")
        alone.add("peak_memory", cost.peak_mib, "MiB")
        figures += alone
    return figures


def _words(cost: ProcessCost) -> str:
    return f"{cost.wall_seconds:.1f} s, {cost.cpu_seconds:.1f} CPU-s"


def costs_beside(
    precision: str, cost: ProcessCost, peers: dict[str, ProcessCost], pairs: int
) -> Figures:
    """CPU a pair beside the better peer, and our memory beside its."""
    figures = Figures(f"score/{precision}")
    peer = min(peers, key=lambda name: peers[name].cpu_seconds)
    ours, theirs = (1e3 * one.cpu_seconds / pairs for one in (cost, peers[peer]))
    figures.add("cpu_per_pair", ours, "CPU-ms", (peer, theirs), at_most=1 / 3)
    figures.add("peak_memory", cost.peak_mib, "MiB", (peer, peers[peer].peak_mib))
    return figures


def throughput(
    precision: str,
    cost: ProcessCost,
    short: ProcessCost,
    bare: dict[str, float],
    pairs: int,
    short_pairs: int,
) -> Figures:
    """Pairs a second, with and without start-up, as shares of both bare forwards."""
    figures = Figures(f"score/{precision}/pairs_per_second")
    running = max(cost.wall_seconds - short.wall_seconds, 1e-9)
    speeds = {
        "whole_run": pairs / cost.wall_seconds,
        "without_start_up": (pairs - short_pairs) / running,
    }
    for name, speed in speeds.items():
        for limit, text in (("77_tokens", "padded_text"), ("trimmed_tokens", "trimmed_text")):
            beside = (
                f"bare forward, {limit.replace('_', ' ')}",
                1 / (bare["picture"] + bare[text]),
            )
            figures.add(f"{name}/{limit}", speed, "pairs/s", beside, at_least=0.9)
    return figures


def agreement(precision: str, ours: Similarities, theirs: Similarities, peer: str) -> Figures:
    """How far the similarities of both are apart, beside how far they spread."""
    figures = Figures(f"score/{precision}/agreement/{peer.split()[0]}")
    keys = sorted(ours.keys() & theirs.keys())
    a, b = (np.array([some[key] for key in keys]) for some in (ours, theirs))
    figures.add("pairs_of_one_alone", len(ours.keys() ^ theirs.keys()), "pairs", at_most=0)
    difference = float(np.abs(a - b).max())
    figures.add("max_difference", difference, "cosine", at_most=_AGREEMENT[precision])
    figures.add("spread", b.std(), "cosine")
    figures.add("pearson", np.corrcoef(a, b)[0, 1], "r")
    return figures
