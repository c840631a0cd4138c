"""One model's pictures of some prompts, judged. No comparison, so no claim.

RUN/evaluation.parquet      the last evaluation: columns of images.parquet
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.files import atomic_path, fingerprint, read_record, remove_leftovers
from curate.base.settings import Precision, device_of
from curate.store.lock import hold
from pipelines.ablation.collect import images_of
from pipelines.ablation.kept import KeptCell
from pipelines.ablation.later import run_text
from pipelines.ablation.pictures import Asked
from pipelines.ablation.run import draw_and_judge
from pipelines.ablation.runs import sampling_of
from pipelines.ablation.study import loaded_judges

_STUDY_S = re.compile(r".+-([0-9a-f]{16})/(seed-\d+)")


def evaluate(
    run: Path | str,
    prompts: pa.Table,
    judges: Mapping[str, Mapping[str, Any]],
    noises: int = 1,
    generation_seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
) -> str:
    """Draw prompts with a trained model, judge the pictures, and keep both in its directory.

    Pictures that it has drawn before, in a study or here, are not drawn again.

    Args:
        prompts: in the schema PROMPTS.
        judges: name -> options.

    Returns:
        Means of each metric by form and wording, as plain text.

    Raises:
        ConfigError: a judge cannot be had.
        DatasetError: `run` is no finished training run.
        StageError: a judge failed.
    """
    from train.assemble import recorded

    run = Path(run).absolute()
    config, settings = recorded(run)
    device = device_of(device)
    specs = loaded_judges(judges, prompts, config.resolution, device)
    asked = Asked(prompts, noises, generation_seed)
    sampling = sampling_of(settings, {})
    name = run_id(run)
    with hold(run):
        remove_leftovers(run, below=True)
        draw_and_judge(run, name, asked, (sampling,), tuple(specs), device, precision)
    wanted = asked.of(name, sampling)
    images = images_of(KeptCell(run.name, settings.seed, run, name, sampling), wanted, specs)
    with atomic_path(run / "evaluation.parquet") as temporary:
        pq.write_table(images, temporary)
    return run_text(run, specs, wanted)


def run_id(run: Path) -> str:
    """What the identity of a run's pictures begins with: as its study says, where it is of one."""
    if found := _STUDY_S.fullmatch(f"{run.parent.name}/{run.name}"):
        return "/".join(found.groups())
    return fingerprint(read_record(run / "run.json")["identity"])
