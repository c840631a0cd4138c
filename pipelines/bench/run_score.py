"""Score a dataset that is downloaded already, and nothing else: what the benchmark measures.

python -m pipelines.bench.run_score DIR --clip-model ViT-S-32 --clip-pretrained FILE
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipelines.options import resolve, settings_options
from pipelines.settings import CurateSettings


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@settings_options(CurateSettings)
def main(directory: Path, config: Path | None, given: dict[str, Any]) -> None:
    """Score every shard of DIR that lacks its scores."""
    from curate.dataset import Dataset
    from curate.score import ScoreSettings, ScoreStage
    from pipelines.ray_stages import ray_session, run_stage

    settings = resolve(CurateSettings, config, given)
    stage = ScoreStage(settings.part(ScoreSettings))
    with ray_session():
        summary = run_stage(stage, Dataset.open(directory), settings.workers)
    click.echo(f"{summary.counts}")


if __name__ == "__main__":
    main()
