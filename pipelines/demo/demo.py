"""`caplab demo`: the whole road on the synthetic web, offline, over real HTTP, on one Ray.

Run again, it skips what is finished; killed, it continues.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.base.files import atomic_path
from curate.base.provenance import provenance
from curate.store.claims import claim_directory
from curate.store.dataset import Dataset
from curate.store.lock import hold
from pipelines.ablation.run import AblationSummary, ablate
from pipelines.ablation.settings import AblateSettings
from pipelines.commands.curate import CurateSettings, curate
from pipelines.commands.recaption import RecaptionCommandSettings, recaption
from pipelines.commands.train import TrainCommandSettings, train
from pipelines.demo.ground_truth import (
    Check,
    caption_checks,
    checks_table,
    checks_text,
    curation_checks,
)
from pipelines.demo.settings import DemoSettings
from pipelines.demo.stage_cost import StageCost, measured
from pipelines.report.build import write_report
from pipelines.runners.choice import one_ray
from pipelines.world import weights
from pipelines.world.scene import WorldConfig
from pipelines.world.serve import serve
from pipelines.world.web import build_web

SELECTION = "clean"
KINDS = ("short", "descriptive")
# The rules of the demo's selection, in the order of the funnel; then duplicates are dropped. Their
# thresholds were set on this same web: the checks against the truth are not held out.
RULES = (
    "clip_similarity >= 0.35",
    "aesthetic >= 5",
    "nsfw < 0.5",
)

STAGES = pa.schema(
    [("stage", pa.string()), ("seconds", pa.float64()), ("peak_memory_bytes", pa.int64())]
)


@dataclass(frozen=True)
class DemoSummary:
    """What the demo found, and where its report is."""

    report: Path
    checks: list[Check]
    ablation: AblationSummary
    costs: list[StageCost] = field(default_factory=list)

    def text(self) -> str:
        """What the command prints; the last line names the report."""
        costs = "\n".join(
            f"{cost.stage:<12}{cost.seconds:>8.1f} s {cost.peak_memory_bytes / 2**20:>9.0f} MiB"
            for cost in self.costs
        )
        return "\n\n".join(
            [
                checks_text(self.checks),
                self.ablation.table,
                "\n".join(self.ablation.headline),
                f"stage       wall time  peak memory\n{costs}",
                f"report: {self.report}",
            ]
        )


def demo(out: Path | str, settings: DemoSettings) -> DemoSummary:
    """Build a synthetic web, serve it, and walk curate, recaption, train and ablate over it.

    Raises:
        DatasetError: `out` belongs to other settings.
        ConfigError: the port is taken.
    """
    shown = Path(out)
    out = shown.absolute()
    with hold(out):
        return _demo(shown, out, settings)


def _demo(shown: Path, out: Path, settings: DemoSettings) -> DemoSummary:
    claim_directory(out, out / "demo.json", "demo", settings.identity(), provenance(settings))
    costs = _Costs(out / "stages.parquet")
    world, dataset_dir = out / "world", out / "dataset"
    truth = world / "truth.parquet"
    base_url = f"http://127.0.0.1:{settings.port}"
    with costs.stage("world"):
        if not truth.exists():
            click.echo(f"writing a synthetic web of {settings.rows} URLs", err=True)
            build_web(world, WorldConfig.small(), settings.rows, settings.seed, base_url)
    _refuse_taken_port(settings.port)
    with one_ray(settings):
        with costs.stage("curate"), serve(world, settings.port):
            curated = curate(world / "urls.parquet", dataset_dir, curate_settings(settings))
        click.echo(curated.text(), err=True)
        with costs.stage("recaption"):
            captions = recaption(dataset_dir, recaption_settings(settings))
        click.echo(captions.text(), err=True)
        dataset = Dataset.open(dataset_dir)
        checks = curation_checks(dataset, truth, RULES)
        checks += caption_checks(dataset, truth, KINDS, captions.source)
        with atomic_path(out / "checks.parquet") as temporary:
            pq.write_table(checks_table(checks), temporary)
        with costs.stage("train"):
            train(dataset_dir, out / "train", train_settings(settings))
        with costs.stage("ablate"):
            result = ablate(dataset_dir, out / "ablation", ablate_settings(settings, truth))
    with costs.stage("report"):
        write_report(
            out / "report.html",
            dataset_dir=dataset_dir,
            run_dir=out / "ablation",
            demo_dir=out,
        )
    return DemoSummary(shown / "report.html", checks, result, costs.all())


def curate_settings(settings: DemoSettings) -> CurateSettings:
    """Curation with the world's own small weights, through the roads of published ones."""
    return CurateSettings(
        rows_per_shard=settings.rows_per_shard,
        image_size=64,
        min_side=64,
        allow_private_addresses=True,  # the synthetic web is on loopback
        host_connections=32,  # and is one host
        clip_model=f"local-dir:{weights.clip_dir()}",
        clip_pretrained=None,
        aesthetic_head=str(weights.aesthetic_head_path()),
        nsfw_head=str(weights.nsfw_head_path()),
        name=SELECTION,
        where=" and ".join(RULES),
        workers=settings.workers,
        duplicate_threads=settings.workers,
        runner=settings.runner,
    )


def recaption_settings(settings: DemoSettings) -> RecaptionCommandSettings:
    """The small LLaVA writes short and descriptive captions."""
    return RecaptionCommandSettings(
        selection=SELECTION,
        captioner=str(weights.captioner_dir()),
        kinds=KINDS,
        workers=settings.workers,
        runner=settings.runner,
    )


def train_settings(settings: DemoSettings) -> TrainCommandSettings:
    """A short single run, to show what a training run leaves behind."""
    return TrainCommandSettings(
        selection=SELECTION,
        model=settings.model,
        captions={"descriptive": 0.95, "alt": 0.05},
        steps=settings.train_steps,
        cpus=1,
        runner=settings.runner,
    )


def ablate_settings(settings: DemoSettings, truth: Path) -> AblateSettings:
    """The three arms of DALL-E 3's ablation, on the world."""
    return AblateSettings(
        selection=SELECTION,
        seeds=tuple(range(settings.seeds)),
        train={"model": settings.model, "steps": settings.steps},
        prompts={"scenes": settings.scenes, "exclude_scenes": str(truth)},
        noises=1,
        workers=settings.workers,
        runner=settings.runner,
    )


class _Costs:
    """Seconds and memory of each stage, kept from the invocation that finished the stage."""

    def __init__(self, path: Path) -> None:
        self._path = path
        rows = pq.read_table(path).to_pylist() if path.exists() else []
        self._costs = {row["stage"]: StageCost(**row) for row in rows}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        with measured(name) as cost:
            yield
        if name not in self._costs:
            self._costs[name] = cost
            rows = [vars(one) for one in self._costs.values()]
            with atomic_path(self._path) as temporary:
                pq.write_table(pa.Table.from_pylist(rows, schema=STAGES), temporary)

    def all(self) -> list[StageCost]:
        return list(self._costs.values())


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"Port {port} is taken, and the demo's URLs carry it; stop what uses it or give "
                f"another --port together with another --out."
            ) from error
