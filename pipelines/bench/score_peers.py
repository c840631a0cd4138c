"""The scorers that are compared: each run as its users run it, each giving its similarities."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from curate.store.dataset import Dataset
from pipelines.bench.peers import peer_python
from pipelines.bench.processes import ProcessCost, run_measured
from pipelines.bench.score_model import ModelFiles
from pipelines.bench.score_pairs import Pairs

# Nobody is charged for compiling Python files, which a second run finds compiled.
ENVIRONMENT: Mapping[str, str] = {
    "PYTHONDONTWRITEBYTECODE": "",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
Similarities = dict[str, float]
"""Key -> cosine of picture and text."""


def run_ours(
    pairs: Pairs, model: ModelFiles, work: Path, precision: str, options: Sequence[str] = ()
) -> tuple[ProcessCost, Dataset]:
    """`caplab score` with all its default scorers, on a copy of the dataset without scores.

    One worker whose threads each score batches of their own, one thread a CPU.
    """
    copy = work / f"ours-{precision}"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(pairs.dataset.directory, copy, copy_function=os.link)
    command: list[str | Path] = [sys.executable, "-m", "pipelines.cli", "score", copy]
    command += ["--clip-model", model.name, "--clip-pretrained", model.safetensors]
    command += ["--precision", precision, "--device", "cpu"]
    command += ["--workers", "1", "--score-threads", str(os.cpu_count() or 1), *options]
    return run_measured(command, env=ENVIRONMENT), Dataset.open(copy)


def our_similarities(dataset: Dataset) -> Similarities:
    """What `caplab score` stored."""
    rows = dataset.connect().execute("SELECT key, clip_similarity FROM scores").fetchall()
    return {str(key): float(value) for key, value in rows}


def run_clip_retrieval(
    pairs: Pairs, model: ModelFiles, work: Path
) -> tuple[ProcessCost, Similarities]:
    """`clip-retrieval inference` on our tars; it stores embeddings, their cosine is taken after.

    Batches of 64 and two loaders: its defaults (256 and 4) are meant for a GPU and cost more here,
    as it warms up with four whole batches.
    """
    out = _new(work / "clip-retrieval")
    first, last = pairs.tars[0], pairs.tars[-1]
    command = [peer_python("clip-retrieval").parent / "clip-retrieval", "inference"]
    command += ["--input_dataset", f"{first.parent}/{{{first.stem}..{last.stem}}}.tar"]
    command += ["--output_folder", out, "--input_format", "webdataset"]
    # A slash after the model's name, then the path with a slash of its own.
    command += ["--clip_model", f"open_clip:{model.name}/{model.pickle.absolute()}"]
    command += ["--batch_size", "64", "--num_prepro_workers", "2"]
    cost = run_measured([str(part) for part in command], env=ENVIRONMENT, cwd=out)
    image, text = (np.load(out / kind / f"{kind}_0.npy") for kind in ("img_emb", "text_emb"))
    keys = pq.read_table(out / "metadata" / "metadata_0.parquet").column("image_path").to_pylist()
    cosine = (image.astype(np.float32) * text.astype(np.float32)).sum(axis=1)
    return cost, dict(zip(keys, cosine.tolist(), strict=True))


def run_data_juicer(
    pairs: Pairs, model: ModelFiles, work: Path
) -> tuple[ProcessCost, Similarities]:
    """`dj-process` with its image-text similarity filter, which keeps every pair here."""
    out = _new(work / "data-juicer")
    recipe = {
        "project_name": "bench",
        "dataset_path": str(pairs.jsonl),
        "export_path": str(out / "scored.jsonl"),
        "work_dir": str(out / "work"),
        "np": os.cpu_count() or 1,
        "use_cache": False,
        "keep_stats_in_res_ds": True,
        "process": [
            {
                "image_text_similarity_filter": {
                    "hf_clip": str(model.hugging_face),
                    "min_score": -1.0,
                    "max_score": 1.0,
                }
            }
        ],
    }
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [str(peer_python("data-juicer").parent / "dj-process"), "--config", "recipe.yaml"]
    cost = run_measured(command, env=ENVIRONMENT, cwd=out)
    lines = (out / "scored.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return cost, {
        row["key"]: float(row["__dj__stats__"]["image_text_similarity"][0]) for row in rows
    }


def _new(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
