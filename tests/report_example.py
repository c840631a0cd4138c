"""A small demo directory with plausible numbers, written through the same contract as a real one.

The pictures are the synthetic world's own. Scores, captions and generated pictures are drawn at
random around the ground truth: nothing is trained here.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.base.files import sha256_file, write_json
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.contract import CAPTIONS, DUPLICATES, SAMPLES, sample_key
from curate.store.dataset import Dataset
from pipelines.ablation.declared import Declaration, Interaction, NoWorse
from pipelines.ablation.schemas import DESCRIBING
from pipelines.ablation.tables import study_tables
from pipelines.world.render import render
from pipelines.world.scene import Scene, WorldConfig, sample_scenes
from pipelines.world.web import build_web
from pipelines.world.writers import habitual_descriptive, upsample, write_descriptive, write_short

WORLD = WorldConfig.small()
SIDE = 64
ARMS = {
    "alt": {"alt": 1.0},
    "short": {"short": 0.95, "alt": 0.05},
    "descriptive": {"descriptive": 0.95, "alt": 0.05},
}
WHERE = "clip_similarity >= 0.2 and aesthetic >= 5 and nsfw < 0.5"
VERSIONS = {"python": "3.11.9", "torch": "2.11.0", "duckdb": "1.4.0", "faiss-cpu": None}


def make_demo(
    directory: Path,
    rows: int = 240,
    seed: int = 0,
    seeds: tuple[int, ...] = (0, 1),
    prompts: int = 48,
) -> Path:
    """A demo's directory: dataset, ablation, the world's truth, checks and stages."""
    build_web(directory / "world", WORLD, rows, seed)
    make_dataset(directory / "dataset", directory / "world", seed)
    make_ablation(directory / "ablation", seeds, seed, prompts)
    _write(directory / "checks.parquet", _checks())
    _write(directory / "stages.parquet", _stages())
    return directory


def make_dataset(
    directory: Path, web: Path, seed: int = 0, planted: dict[int, dict[str, str]] | None = None
) -> Dataset:
    """Curate the web at `web` by fiat: ground truth plus noise instead of models.

    Args:
        planted: row -> texts ("url", "alt_text", "caption", "detail", "reason") to write instead.
    """
    rng = np.random.default_rng(seed)
    dataset = Dataset.create(
        directory,
        {"input": "urls.parquet", "image_size": SIDE},
        {
            "settings": {"image_size": SIDE, "download": {"threads": 32, "timeout_s": 10}},
            "versions": VERSIONS,
            "weights": {"clip.safetensors": "5f" * 32, "aesthetic.safetensors": "a1" * 32},
            "created_at": "2026-11-21T04:00:00+00:00",
        },
    )
    truth = pq.read_table(web / "truth.parquet").to_pylist()
    urls = pq.read_table(web / "urls.parquet").column("url").to_pylist()
    half = (len(truth) + 1) // 2
    for number in range(2):
        part = range(number * half, min((number + 1) * half, len(truth)))
        shard = f"{number:05d}"
        _write_shard(dataset, shard, part, truth, urls, web, rng, planted or {})
    _write_duplicates(dataset, truth, urls, planted or {})
    select(dataset, SelectSettings(where=WHERE))
    return dataset


def _write_shard(dataset, shard, part, truth, urls, web, rng, planted):
    samples, scores, captions = [], [], []
    dataset.shard_path(shard).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(dataset.shard_path(shard), "w") as archive:
        for row in part:
            plant = planted.get(row, {})
            url = plant.get("url", urls[row])
            alt_text = plant.get("alt_text", truth[row]["alt_text"])
            reason, detail = _failure(truth[row])
            sample = dict.fromkeys(SAMPLES.names)
            sample |= {
                "key": sample_key(url, alt_text),
                "shard": shard,
                "row": row,
                "url": url,
                "alt_text": alt_text,
                "status": "failed" if reason else "stored",
                "reason": plant.get("reason", reason) if reason else None,
                "detail": plant.get("detail", detail) if reason else None,
            }
            if not reason:
                sample |= _stored(archive, sample["key"], web / truth[row]["path"])
                scores.append(_scores(sample["key"], truth[row], rng))
                captions += _captions(sample, truth[row], row, rng, plant)
            samples.append(sample)
    _write(dataset.input_path(shard), [{"url": urls[row]} for row in part])
    dataset.write_table("samples", pa.Table.from_pylist(samples, schema=SAMPLES), shard)
    dataset.write_table("scores", pa.Table.from_pylist(scores), shard)
    dataset.write_table("captions", pa.Table.from_pylist(captions, CAPTIONS), shard, "tiny-llava")


def _failure(truth) -> tuple[str | None, str]:
    if truth["defect"] == "too_small":
        return "too_small", "20 x 20"
    return {
        "not_found": ("http_404", "HTTP 404 Not Found"),
        "refused": ("connection_refused", "[Errno 111] Connection refused"),
        "truncated": ("broken_image", "image file is truncated (12 bytes not processed)"),
        "html": ("not_an_image", "the bytes begin with '<!doctype html>'"),
        "empty": ("empty_body", ""),
    }.get(truth["detail"], (None, ""))


def _stored(archive, key, path):
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        width, height = picture.size
        kind = (picture.format or "").lower()
        buffer = io.BytesIO()
        small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(buffer, "JPEG", quality=92)
    for suffix, body in (("jpg", buffer.getvalue()), ("txt", b""), ("json", b"{}")):
        member = tarfile.TarInfo(f"{key}.{suffix}")
        member.size = len(body)
        archive.addfile(member, io.BytesIO(body))
    return {
        "original_width": width,
        "original_height": height,
        "original_format": kind,
        "original_bytes": len(content),
        "width": SIDE,
        "height": SIDE,
        "format": "jpg",
        "sha256": sha256_file(path),
    }


def _scores(key, truth, rng):
    return {
        "key": key,
        "clip_similarity": rng.normal(0.31 if truth["text_matches"] else 0.09, 0.06),
        "aesthetic": rng.normal(6.1 if truth["good_looking"] else 3.9, 0.6),
        "nsfw": float(rng.beta(8, 2) if truth["unsafe"] else rng.beta(1.2, 14)),
        "blur": float(rng.lognormal(5, 0.6)),
        "brightness": float(rng.uniform(40, 220)),
        "text_words": len((truth["alt_text"] or "").split()),
        "text_is_filename": truth["text_kind"] == "filename",
    }


def _captions(sample, truth, row, rng, plant):
    scene = Scene.from_json(truth["scene"])
    base = dict.fromkeys(CAPTIONS.names)
    base |= {"key": sample["key"], "sample_index": 0, "flags": [], "finish_reason": "stop"}
    base |= {"attempts": 1, "engine": "transformers", "model": "tiny-llava", "seed": row}
    told = {
        "short": write_short([scene], row)[0],
        "descriptive": write_descriptive([scene], row)[0],
    }
    captions = []
    for kind, said in told.items():
        said = plant.get("caption", said)
        caption = {**base, "kind": kind, "raw_text": said, "text": said, "status": "ok"}
        caption |= {"words": len(said.split()), "output_tokens": len(said.split()) + 2}
        # Short captions fit better in one row of four.
        ahead = 0.05 * (1 if row % 4 else -1) * (kind == "descriptive")
        caption["clip_similarity"] = 0.25 + ahead + 0.001 * (row % 10)
        if rng.random() < 0.07:
            reason = str(rng.choice(["too_short", "repetition", "unfinished"]))
            caption |= {"text": None, "status": "rejected", "reason": reason, "flags": [reason]}
            caption["finish_reason"] = "length" if reason == "unfinished" else "stop"
        captions.append(caption)
    return captions


def _write_duplicates(dataset, truth, urls, planted):
    def key(row):
        plant = planted.get(row, {})
        return sample_key(
            plant.get("url", urls[row]), plant.get("alt_text", truth[row]["alt_text"])
        )

    rows = []
    for row, fact in enumerate(truth):
        if fact["edit"] in ("", "original"):
            continue
        exact = fact["edit"] == "exact"
        group = key(fact["duplicate_group"])
        for method in ("exact",) if exact else ("near", "embedding"):
            distance = {"exact": 0.0, "near": row % 9 + 1.0, "embedding": 0.01 * (row % 5 + 1)}
            pair = {"method": method, "group": group, "distance": distance[method]}
            rows.append({**pair, "key": key(row), "kept": False})
            rows.append({**pair, "key": group, "kept": True, "distance": 0.0})
    unique = list({(r["method"], r["key"]): r for r in rows}.values())
    dataset.write_table("duplicates", pa.Table.from_pylist(unique, DUPLICATES))


# ---- the ablation -----------------------------------------------------------------------------

SKILL = {
    ("alt", "descriptive"): 0.12,
    ("alt", "short"): 0.2,
    ("alt", "upsampled"): 0.14,
    ("short", "descriptive"): 0.22,
    ("short", "short"): 0.62,
    ("short", "upsampled"): 0.4,
    ("descriptive", "descriptive"): 0.82,
    ("descriptive", "short"): 0.44,
    ("descriptive", "upsampled"): 0.8,
}
EASE = {"object_hit": 1.0, "colour": 1.5, "shape": 1.25, "position": 1.6, "count": 1.4}
EASE |= {"binding": 1.1, "all_correct": 0.7}
DECLARED = Declaration(
    contrasts=(("descriptive", "alt"), ("descriptive", "short"), ("short", "alt")),
    no_worse=(NoWorse(arm="descriptive", than="alt", form="short", margin=0.05),),
    interactions=(Interaction(arms=("descriptive", "short"), forms=("descriptive", "short")),),
    trends={"detail": {"alt": 0.0, "short": 50.0, "descriptive": 95.0}},
)
SHOWN = 12


def make_ablation(
    directory: Path, seeds: tuple[int, ...] = (0, 1), seed: int = 0, prompts: int = 48
) -> Path:
    """An ablation's directory with three arms."""
    rng = np.random.default_rng(seed)
    scenes = sample_scenes(WORLD, prompts, 900)
    short = write_short(scenes, 5)
    asked = [
        ("descriptive", "captioner", habitual_descriptive(scenes)),
        ("descriptive", "varied", write_descriptive(scenes, 5)),
        ("short", "varied", short),
        ("upsampled", "captioner", upsample(short, 5)),
    ]
    rows, pictures = [], []
    for arm in ARMS:
        for number in seeds:
            for form, wording, texts in asked:
                drawn = _images(arm, number, form, wording, scenes, texts, rng)
                rows += [row for row, _ in drawn]
                pictures += [picture for _, picture in drawn[:SHOWN] if wording != "varied"]
    columns = [field.name for field in DESCRIBING]
    described = pa.Table.from_pylist([{n: r[n] for n in columns} for r in rows], DESCRIBING)
    for name in [name for name in rows[0] if name not in columns]:
        described = described.append_column(name, pa.array([r[name] for r in rows], pa.float64()))
    tables = study_tables(described, None, DECLARED)
    for name, table in (
        ("images", described),
        ("shown", pa.Table.from_pylist(pictures)),
        ("bounds", pa.Table.from_pylist(_bounds())),
        ("sets", pa.Table.from_pylist(_sets(seeds, rng))),
        ("blend", _blend(seeds, rng)),
        *tables.named().items(),
    ):
        path = directory / "results" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    runs = []
    for arm in ARMS:
        for number in seeds:
            place = f"runs/{arm}-0a1b2c3d/seed-{number}"
            _train_run(directory / place, arm, number, rng)
            runs.append({"arm": arm, "seed": number, "run": place})
    write_json(
        directory / "run.json",
        {
            "kind": "ablation",
            "settings": {"selection": "default"},
            "versions": VERSIONS,
            "weights": {},
            "created_at": "2026-11-21T05:00:00+00:00",
            "headline": tables.headline,
            "limits": [
                "The pictures are drawn by a program; nothing here shows how captions act on "
                "photographs.",
                "Two seeds an arm: enough to see wide margins, not small ones.",
            ],
            "arms": [{"name": name, "captions": blend} for name, blend in ARMS.items()],
            "runs": runs,
            "trends": {name: dict(doses) for name, doses in DECLARED.trends.items()},
            "seeds": list(seeds),
            "primary": {"metric": "object_hit", "form": "descriptive", "wording": "all"},
        },
    )
    return directory


def _images(arm, number, form, wording, scenes, prompts, rng):
    # Fixed effects of seed and prompt make the arms look like trained ones.
    skill = SKILL[arm, form] + rng.normal(0, 0.03)
    meant = render(scenes, WORLD, 32)
    wrong = render([replace(scene, objects=scene.objects[:1]) for scene in scenes], WORLD, 32)
    drawn = []
    for index, (scene, prompt) in enumerate(zip(scenes, prompts, strict=True)):
        right = rng.random() < skill
        picture = (meant if right else wrong)[index]
        noisy = np.clip(picture + rng.normal(0, 4 if right else 26, picture.shape), 0, 255)
        count = len(scene.objects)
        scored = {
            name: float(rng.binomial(count, min(skill * ease, 0.98)) / count)
            for name, ease in EASE.items()
        }
        if form != "descriptive":
            scored |= {"position": None, "count": None}
        where = {"arm": arm, "seed": number, "prompt_id": f"{form}-{wording}-{index}", "noise": 0}
        row = {
            **where,
            "form": form,
            "wording": wording,
            "intent_id": f"scene-{index}",
            "category": "1 object" if count == 1 else f"{count} objects",
            "held_out": index % 4 == 0,
            "picture_id": f"{arm}-{number}-{form}-{wording}-{index}",
            "prompt": prompt,
            **scored,
            "malformed": float(rng.binomial(count, 0.3 * (1 - skill)) / count),
            "hallucinated": float(rng.poisson(0.8 * (1 - skill))),
        }
        shown = {"webp": _png(noisy.astype(np.uint8)), "target_webp": _png(meant[index])}
        drawn.append((row, {**where, **shown}))
    return drawn


def _bounds() -> list[dict]:
    names = ("form", "metric", "ceiling", "unrelated", "hedging")
    rows = [("descriptive", "object_hit", 1.0, 0.02, 0.05), ("short", "object_hit", 1.0, 0.1, 0.4)]
    return [dict(zip(names, row, strict=True)) for row in rows]


def _sets(seeds, rng) -> list[dict]:
    return [
        {
            "arm": arm,
            "seed": number,
            "form": "short",
            "wording": "all",
            "metric": "kid",
            "value": float(rng.normal(0.02, 0.002)),
            "floor": 0.001,
            "pictures": 48,
        }
        for arm in ARMS
        for number in seeds
    ]


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def _blend(seeds, rng) -> pa.Table:
    rows = []
    for arm, blend in ARMS.items():
        for number in seeds:
            for kind, share in blend.items():
                drift = rng.normal(0, 0.002) if share < 1 else 0.0
                row = {"arm": arm, "seed": number, "kind": kind, "share_declared": share}
                rows.append({**row, "share_realised": share + drift, "images": 44_800})
    return pa.Table.from_pylist(rows)


def _train_run(directory: Path, arm: str, number: int, rng) -> None:
    steps = np.arange(10, 701, 10)
    floor = {"alt": 0.07, "short": 0.05, "descriptive": 0.025}[arm]
    loss = (floor + 0.5 * np.exp(-steps / 90)) * rng.lognormal(0, 0.07, len(steps))
    rows = [
        {
            "step": int(step),
            "loss": float(value),
            "gradient_norm": 0.3,
            "learning_rate_scale": float(min(step / 20, 1) * min((700 - step) / 280, 1)),
            "images_per_second": float(rng.normal(430, 12)),
        }
        for step, value in zip(steps, loss, strict=True)
    ]
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), directory / "metrics.parquet")
    kinds = {"alt": 1.9, "short": 1.5, "descriptive": 1.0, "empty": 2.0}
    validation = [
        {"step": 700, "caption_kind": kind, "timestep": t, "loss": float(floor * factor * (1 + t))}
        for kind, factor in kinds.items()
        for t in (0.25, 0.75)
    ]
    pq.write_table(pa.Table.from_pylist(validation), directory / "validation.parquet")
    grid = render(sample_scenes(WORLD, 16, number), WORLD, 64)
    (directory / "grids").mkdir()
    sheet = grid.reshape(4, 4, 64, 64, 3).swapaxes(1, 2).reshape(256, 256, 3)
    (directory / "grids" / "step-000700.png").write_bytes(_png(sheet))
    write_json(directory / "run.json", {"kind": "training run", "settings": {"seed": number}})
    summary = {"steps": 700, "samples": 1234, "loss": float(loss[-1]), "seconds": 104.0}
    summary |= {"images_per_second": 430.0, "truncated": {"alt": 0, "descriptive": 12}}
    summary |= {"device": "cpu", "precision": "bfloat16"}
    write_json(directory / "summary.json", summary)


# ---- the demo's own tables --------------------------------------------------------------------


def _checks() -> list[dict]:
    rows = [
        ("download: too small", "reason in (too_small)", 1.0, 1.0, 30, 30, 30, "rows of the list"),
        ("download: dead link", "reason in (http_404)", 1.0, 0.97, 29, 29, 30, "rows of the list"),
        ("filter: clip similarity", "clip_similarity >= 0.2", 0.97, 0.98, 441, 455, 450, "texts"),
        ("filter: aesthetic", "aesthetic >= 5", 0.94, 0.96, 216, 230, 225, "pale or blurred"),
        ("filter: nsfw", "nsfw < 0.5", 1.0, 0.98, 132, 132, 135, "the marker for unsafe"),
        ("duplicate pairs: exact", "method = exact", 1.0, 1.0, 60, 60, 60, "pairs"),
        ("duplicate pairs: near", "method = near", 0.98, 0.9, 162, 165, 180, "pairs"),
        ("duplicates: crop", "any method", None, 0.8, 36, 0, 45, "copies"),
        ("duplicates: mirror", "any method", None, 0.93, 42, 0, 45, "copies"),
        ("captions: descriptive", "by tiny-llava", 0.99, 0.98, 2970, 3000, 3030, "objects"),
    ]
    names = ("check", "rule", "precision", "recall", "true_positives", "flagged", "positives")
    return [dict(zip((*names, "note"), row, strict=True)) for row in rows]


def _stages() -> list[dict]:
    costs = (("world", 14, 0.3), ("download", 62, 1.1), ("score", 48, 1.6), ("duplicates", 9, 0.9))
    costs += (("recaption", 55, 1.4), ("train", 40, 1.2), ("ablate", 310, 2.4))
    return [
        {"stage": stage, "seconds": float(time), "peak_memory_bytes": int(memory * 2**30)}
        for stage, time, memory in costs
    ]


def _write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


if __name__ == "__main__":
    import sys

    from pipelines.report.build import write_report

    demo = make_demo(Path(sys.argv[1]), rows=1500)
    print(json.dumps(str(write_report(demo / "report.html", demo_dir=demo))))
