"""The data of the committed results: the demo's web, curated and captioned as the demo does it.

OUT/world/            the synthetic web and its truth
OUT/dataset/          curated; captions alt, short and descriptive, and those that only studies need
OUT/early-captioner/  a captioner's short fit, whose checkpoints caption worse

A step that is done is skipped, so the same call continues.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from curate.base.errors import ConfigError
from curate.base.files import fingerprint, sha256_file, write_json
from curate.base.progress import tell
from curate.base.provenance import provenance
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from curate.store.dataset_card import write_dataset_card
from curate.store.holes import note_finished
from curate.store.lock import writing
from pipelines.commands.curate import curate
from pipelines.commands.recaption import recaption
from pipelines.demo.demo import curate_settings, recaption_settings
from pipelines.demo.settings import DemoSettings
from pipelines.make_weights.captioner_pairs import write_clean_pairs
from pipelines.world.caption_truth import world_truth
from pipelines.world.scene import WorldConfig
from pipelines.world.serve import serve
from pipelines.world.web import build_web
from pipelines.world.wordings import DESCRIPTIVE
from recaption.captioning.rows import text_columns
from recaption.fit.run import fit
from recaption.fit.settings import FitSettings
from recaption.measure.token_counts import CACHED, TokenCounter
from recaption.prompts.templates import DESCRIPTIVE as DESCRIBE

KINDS = ("short", "descriptive")
VARIED, VARIED_SEED = "varied", 7
EARLY = ("early_1", "early_2", "early_3")
SAID = "regexp_matches(alt_text, '[A-Za-z0-9]')"
"""The web's texts that are one: all filters choose among the same pictures."""


@dataclass(frozen=True)
class DataSize:
    """How much is made.

    Attributes:
        rows: URLs of the web.
        pairs, epochs: of the short fit; 0 pairs leave its captioners out.
        checkpoints: shares of the fit after which its captions are taken, one for each of EARLY.
    """

    rows: int = 6000
    rows_per_shard: int = 500
    pairs: int = 2000
    epochs: float = 12.0
    checkpoints: tuple[float, ...] = (0.15, 0.4, 1.0)
    workers: int = 2


def make_data(out: Path, size: DataSize) -> Dataset:
    """Build what is missing of the data; minutes of two cores in all.

    Raises:
        ConfigError: the port of the web is taken.
    """
    demo = DemoSettings(
        rows=size.rows, rows_per_shard=size.rows_per_shard, workers=size.workers, runner="local"
    )
    world, directory = out / "world", out / "dataset"
    truth = world / "truth.parquet"
    if not truth.exists():
        build_web(world, WorldConfig.small(), demo.rows, demo.seed, _url(demo))
    settings = curate_settings(demo)
    if not (directory / "selections" / f"{settings.name}.json").exists():
        with serve(world, demo.port):
            tell(curate(world / "urls.parquet", directory, settings).text())
    dataset = Dataset.open(directory)
    tell(recaption(directory, recaption_settings(demo).model_copy(update={"kinds": KINDS})).text())
    write_truth_captions(dataset, truth, VARIED, VARIED)
    if size.pairs:
        write_early_captions(out, size)
    make_selections(dataset)
    return dataset


def write_truth_captions(
    dataset: Dataset, truth: Path, kind: str, wording: str, seed: int = VARIED_SEED
) -> str:
    """Error-free descriptive captions of every stored sample: the truth in a wording of the world.

    They are captions of `kind` like any other, by a source that says where they come from.

    Returns:
        The source, "truth-HASH".
    """
    scenes = world_truth(dataset, truth).scenes
    keys = sorted(scenes)
    texts = DESCRIPTIVE[wording]([scenes[key] for key in keys], seed)
    said = dict(zip(keys, texts, strict=True))
    identity = {"kind": kind, "wording": wording, "seed": seed, "truth": sha256_file(truth)}
    source = f"truth-{fingerprint(identity)[:8]}"
    tokens = TokenCounter(CACHED)
    with writing(dataset.directory, f"captions/{source}"):
        write_json(dataset.directory / "captioners" / f"{source}.json", provenance(identity))
        for shard in dataset.shards():
            if not dataset.has_shard("captions", shard, source):
                samples = dataset.read_table("samples", shard, None, ["key"])
                own = [key for key in sorted(samples.column("key").to_pylist()) if key in said]
                rows = _truth_rows(own, [said[key] for key in own], identity, tokens)
                dataset.write_table("captions", rows, shard, source)
        note_finished(dataset, f"captions/{source}")
        write_dataset_card(dataset)
    return source


def _truth_rows(
    keys: list[str],
    texts: list[str],
    identity: dict[str, Any],
    tokens: TokenCounter,
) -> pa.Table:
    count = len(keys)
    same = {
        "kind": identity["kind"],
        "sample_index": 0,
        "status": "ok",
        "flags": [],
        "engine": "none",
        "model": "the truth of a synthetic web",
        "prompt_id": f"pipelines.world.wordings:{identity['wording']}",
        "alt_text_shown": False,
        "sampling": json.dumps(identity, sort_keys=True),
        "created_at": datetime.now(UTC),
    }
    columns: dict[str, list[Any]] = {n: [same.get(n)] * count for n in CAPTIONS.names}
    columns |= {"key": keys, "text": list(texts), "raw_text": list(texts)}
    columns |= text_columns(texts, tokens)
    return pa.table(columns, schema=CAPTIONS)


def write_early_captions(out: Path, size: DataSize) -> None:
    """Captions by one captioner's checkpoints, as kinds of their own.

    A new captioner is fitted to `size.pairs` clean pictures, far fewer than the demo's was.
    """
    folder = out / "early-captioner"
    pairs = folder / "pairs.parquet"
    if not pairs.exists():
        write_clean_pairs(pairs, size.pairs, seed=0)
    settings = FitSettings(
        kinds=("descriptive",),
        batch_size=64,
        vocabulary=512,
        epochs=size.epochs,
        keep="last",
        validations=2,
        checkpoints=size.checkpoints,
        threads=1,
        seed=0,
    )
    tell(fit(pairs, folder / "run", settings).text())
    prompts = folder / "prompts.yaml"
    ask = {"version": DESCRIBE.version, "text": DESCRIBE.text}
    prompts.write_text(yaml.safe_dump(dict.fromkeys(EARLY, ask)), encoding="utf-8")
    demo = DemoSettings(workers=size.workers, runner="local")
    for kind, share in zip(EARLY, size.checkpoints, strict=True):
        captioner = folder / "run" / "checkpoints" / f"descriptive-{share:g}"
        own = {"captioner": str(captioner), "kinds": (kind,), "prompts": str(prompts)}
        tell(recaption(out / "dataset", recaption_settings(demo).model_copy(update=own)).text())


def make_selections(dataset: Dataset) -> None:
    """What the filters' arms train on; copies stay but where they are what is filtered.

    Raises:
        ConfigError: no picture passes a filter.
    """

    def made(name: str, where: str, keep_duplicates: bool = True) -> list[str]:
        if name not in dataset.selections():
            select(dataset, SelectSettings(name=name, where=where, keep_duplicates=keep_duplicates))
        return dataset.selection_keys(name)

    everything = made("all", SAID)
    by_clip = made("clip", f"{SAID} and clip_similarity >= 0.35")
    made("aesthetic", f"{SAID} and aesthetic >= 5")
    made("deduplicated", SAID, keep_duplicates=False)
    if not by_clip:
        raise ConfigError("No picture of the web passes the CLIP filter; make a larger web.")
    # A subset of exactly that size, by a hash of the key.
    last = sorted(_hashed(key) for key in everything)[len(by_clip) - 1]
    made("random", f"{SAID} and md5('random' || key) <= '{last}'")


def _hashed(key: str) -> str:
    return hashlib.md5(f"random{key}".encode(), usedforsecurity=False).hexdigest()


def _url(demo: DemoSettings) -> str:
    return f"http://127.0.0.1:{demo.port}"
