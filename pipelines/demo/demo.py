"""`caplab demo`: the whole road on the synthetic web, offline and over real HTTP.

Run again, it skips what is finished; killed, it continues.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.base.files import atomic_path, write_json
from curate.base.progress import tell
from curate.base.provenance import provenance
from curate.base.telling.summaries import Summary
from curate.store.claims import claim_directory
from curate.store.dataset import Dataset
from curate.store.lock import hold
from pipelines.ablation.declared import NoWorse
from pipelines.ablation.run import AblationSummary, ablate
from pipelines.ablation.settings import AblateSettings, Arm
from pipelines.commands.curate import CurateSettings, curate
from pipelines.commands.recaption import RecaptionCommandSettings, recaption
from pipelines.demo.answer import answer_of, bounds_text
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
from pipelines.world import weights
from pipelines.world.scene import WorldConfig
from pipelines.world.serve import serve
from pipelines.world.web import build_web
from recaption.transforms.derivation import Derivation

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
    [
        ("stage", pa.string()),
        ("seconds", pa.float64()),
        ("cpu_seconds", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
    ]
)


@dataclass(frozen=True)
class DemoSummary(Summary):
    """What the demo found, and where its report is.

    `bounds`: between what the world judge's scores lie. `answer`: what the study shows and what
    not, in one sentence.
    """

    report: Path
    checks: list[Check]
    ablation: AblationSummary
    bounds: str
    answer: str
    costs: list[StageCost] = field(default_factory=list)

    def text(self) -> str:
        """What the command prints; the last paragraph is the answer."""
        return "\n\n".join(
            [
                checks_text(self.checks),
                self.ablation.table,
                self.bounds,
                "\n".join(self.ablation.headline),
                costs_text(self.costs),
                f"report: {self.report}",
                self.answer,
            ]
        )


def demo(out: Path | str, settings: DemoSettings) -> DemoSummary:
    """Build a synthetic web, serve it, and walk curate, recaption and ablate over it.

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
            tell(f"writing a synthetic web of {settings.rows} URLs")
            build_web(world, WorldConfig.small(), settings.rows, settings.seed, base_url)
    _refuse_taken_port(settings.port)
    with costs.stage("curate"), serve(world, settings.port):
        curated = curate(world / "urls.parquet", dataset_dir, curate_settings(settings))
    tell(curated.text())
    with costs.stage("recaption"):
        captions = recaption(dataset_dir, recaption_settings(settings))
    tell(captions.text())
    dataset = Dataset.open(dataset_dir)
    checks = curation_checks(dataset, truth, RULES)
    checks += caption_checks(dataset, truth, KINDS, captions.source)
    with atomic_path(out / "checks.parquet") as temporary:
        pq.write_table(checks_table(checks), temporary)
    study = out / "ablation"
    with costs.stage("ablate"):
        result = ablate(dataset_dir, study, ablate_settings(settings, truth))
    answer = answer_of(study)
    write_json(out / "answer.json", {"answer": answer})
    with costs.stage("report"):
        report = write_report(
            out / "report.html", dataset_dir=dataset_dir, run_dir=study, demo_dir=out
        )
    return DemoSummary(shown / report.name, checks, result, bounds_text(study), answer, costs.all())


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


def ablate_settings(settings: DemoSettings, truth: Path) -> AblateSettings:
    """Whether captions of what a picture shows beat alt texts, and whether it is their style.

    "shuffled" are the descriptive captions on other pictures: the style without the information.
    """
    return AblateSettings(
        selection=SELECTION,
        caption_sets={"shuffled": Derivation(of="descriptive", rule="shuffle")},
        arms={
            "alt": Arm(captions={"alt": 1.0}),
            "shuffled": Arm(captions={"shuffled": 0.95, "alt": 0.05}),
            "descriptive": Arm(captions={"descriptive": 0.95, "alt": 0.05}),
        },
        contrasts=(("descriptive", "alt"), ("descriptive", "shuffled")),
        no_worse=(NoWorse(arm="descriptive", than="alt", form="short", margin=0.05),),
        seeds=tuple(range(settings.seeds)),
        train={"model": settings.model, "steps": settings.steps},
        prompts={
            "scenes": settings.scenes,
            "forms": ["descriptive", "short"],
            "exclude_scenes": str(truth),
        },
        noises=settings.noises,
        workers=settings.workers,
        runner=settings.runner,
    )


def costs_text(costs: Sequence[StageCost]) -> str:
    """A plain-text table of the stages, with their sum."""
    lines = ["stage       wall time    CPU time  peak memory"]
    for cost in costs:
        lines.append(
            f"{cost.stage:<12}{cost.seconds:>7.1f} s {cost.cpu_seconds:>9.1f} s "
            f"{cost.peak_memory_bytes / 2**20:>8.0f} MiB"
        )
    seconds, cpu = sum(c.seconds for c in costs), sum(c.cpu_seconds for c in costs)
    lines.append(f"{'together':<12}{seconds:>7.1f} s {cpu:>9.1f} s")
    return "\n".join(lines)


class _Costs:
    """What each stage cost, kept from the invocation that finished the stage."""

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
