"""The scorers that are compared: each run as its users run it, each giving its similarities."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml

from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from pipelines.bench.common.peers import peer_python
from pipelines.bench.common.processes import CAPLAB, ProcessCost, options, run_measured
from pipelines.bench.score.random_clip import ModelFiles

# Nobody is charged for compiling Python files, which a second run finds compiled.
ENVIRONMENT: Mapping[str, str] = {
    "PYTHONDONTWRITEBYTECODE": "",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
Similarities = dict[str, float]
"""Key -> cosine of picture and text."""


def linked_copy(dataset: Dataset, directory: Path) -> Dataset:
    """A dataset of the same files, by hard links: its new tables are its own."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(dataset.directory, directory, copy_function=os.link)
    return Dataset.open(directory)


def run_ours(
    pairs: Dataset, model: ModelFiles, work: Path, precision: str
) -> tuple[ProcessCost, Similarities]:
    """`caplab score` with all its default scorers, on a copy of the dataset without scores.

    One worker whose threads each score batches of their own, one thread a CPU.
    """
    copy = linked_copy(pairs, work / f"ours-{precision}")
    settings = {
        "clip_model": model.name,
        "clip_pretrained": model.safetensors,
        "precision": precision,
        "device": "cpu",
        "workers": 1,
        "score_threads": os.cpu_count() or 1,
    }
    command = [*CAPLAB, "score", copy.directory, *options(settings)]
    cost = run_measured(command, env=ENVIRONMENT)
    rows = copy.connect().execute("SELECT key, clip_similarity FROM scores").fetchall()
    return cost, {str(key): float(value) for key, value in rows}


def run_clip_retrieval(
    pairs: Dataset, model: ModelFiles, work: Path
) -> tuple[ProcessCost, Similarities]:
    """`clip-retrieval inference` on our tars; it stores embeddings, their cosine is taken after.

    Batches of 64 and two loaders: its defaults (256 and 4) are meant for a GPU and cost more here,
    as it warms up with four whole batches.
    """
    out = _new(work / "clip-retrieval")
    tars = [pairs.shard_path(shard) for shard in pairs.shards()]
    settings = {
        "input_dataset": f"{tars[0].parent}/{{{tars[0].stem}..{tars[-1].stem}}}.tar",
        "output_folder": out,
        "input_format": "webdataset",
        # A slash after the model's name, then the path with a slash of its own.
        "clip_model": f"open_clip:{model.name}/{model.pickle.absolute()}",
        "batch_size": 64,
        "num_prepro_workers": 2,
    }
    command = [peer_python("clip-retrieval").parent / "clip-retrieval", "inference"]
    flags = [f"--{name}={value}" for name, value in settings.items()]
    cost = run_measured([*command, *flags], env=ENVIRONMENT, cwd=out)
    image, text = (np.load(out / kind / f"{kind}_0.npy") for kind in ("img_emb", "text_emb"))
    keys = pq.read_table(out / "metadata" / "metadata_0.parquet").column("image_path").to_pylist()
    cosine = (image.astype(np.float32) * text.astype(np.float32)).sum(axis=1)
    return cost, dict(zip(keys, cosine.tolist(), strict=True))


def run_data_juicer(
    pairs: Dataset, model: ModelFiles, work: Path
) -> tuple[ProcessCost, Similarities]:
    """`dj-process` with its image-text similarity filter, which keeps every pair here."""
    out = _new(work / "data-juicer")
    accept_all = {"hf_clip": str(model.hugging_face), "min_score": -1.0, "max_score": 1.0}
    recipe = {
        "project_name": "bench",
        "dataset_path": str(as_files(pairs, out / "pairs")),
        "export_path": str(out / "scored.jsonl"),
        "work_dir": str(out / "work"),
        "np": os.cpu_count() or 1,
        "use_cache": False,
        "keep_stats_in_res_ds": True,
        "process": [{"image_text_similarity_filter": accept_all}],
    }
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [peer_python("data-juicer").parent / "dj-process", "--config", "recipe.yaml"]
    cost = run_measured(command, env=ENVIRONMENT, cwd=out)
    lines = (out / "scored.jsonl").read_text("utf-8").splitlines()
    stats = {row["key"]: row["__dj__stats__"] for row in map(json.loads, lines)}
    return cost, {key: float(row["image_text_similarity"][0]) for key, row in stats.items()}


def as_files(dataset: Dataset, folder: Path) -> Path:
    """Each picture as a file of its own, and the JSONL that names them, for Data-Juicer."""
    folder.mkdir(parents=True)
    lines = []
    for shard in dataset.shards():
        for key, image, text in iter_shard(dataset, shard):
            path = folder / f"{key}.jpg"
            path.write_bytes(image)
            # Data-Juicer marks a picture's place in the text by this token.
            record = {"key": key, "text": f"<__dj__image> {text}", "images": [str(path)]}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    jsonl = folder / "pairs.jsonl"
    jsonl.write_text("".join(lines), encoding="utf-8")
    return jsonl


def _new(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
