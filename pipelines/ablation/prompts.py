"""What every arm is asked to draw: the same prompts, in one or several forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.errors import ConfigError
from pipelines.ablation.settings import AblateSettings

PROMPTS = pa.schema(
    [
        ("prompt_form", pa.string()),
        ("prompt_index", pa.int64()),  # the same scene has the same index in every form
        ("prompt", pa.string()),
        ("scene", pa.string()),  # JSON of the true scene; null where there is none
    ]
)


def evaluation_prompts(settings: AblateSettings, seen_scenes: set[str] | None = None) -> pa.Table:
    """The prompts of an ablation, in the schema PROMPTS.

    Args:
        seen_scenes: JSON of scenes that must not be asked for, because they were trained on.

    Raises:
        ConfigError: the prompt file is missing, unreadable, or has no column `prompt`.
    """
    if settings.prompts is not None:
        return _from_file(Path(settings.prompts))
    return _from_world(settings, seen_scenes or set())


def _from_world(settings: AblateSettings, seen: set[str]) -> pa.Table:
    from pipelines.world.scene import WorldConfig, sample_scenes
    from pipelines.world.writers import upsample, write_descriptive, write_short

    config = WorldConfig.small() if settings.world == "small" else WorldConfig.rich()
    scenes = []
    # Twice as many as asked, so that dropping the scenes that were seen leaves enough.
    for scene in sample_scenes(config, 2 * settings.scenes, settings.prompt_seed):
        if scene.to_json() not in seen:
            scenes.append(scene)
    scenes = scenes[: settings.scenes]
    short = write_short(scenes, settings.prompt_seed)
    forms = {
        "descriptive": write_descriptive(scenes, settings.prompt_seed),
        "short": short,
        "upsampled": upsample(short, settings.prompt_seed, config.grid),
    }
    rows = [
        {"prompt_form": form, "prompt_index": index, "prompt": text, "scene": scene.to_json()}
        for form, texts in forms.items()
        for index, (text, scene) in enumerate(zip(texts, scenes, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def _from_file(path: Path) -> pa.Table:
    if not path.exists():
        raise ConfigError(f"The prompt file {path} does not exist.")
    rows = _read_rows(path)
    if not rows or "prompt" not in rows[0]:
        raise ConfigError(f"The prompt file {path} needs a column named 'prompt' and one row.")
    forms = [str(row.get("prompt_form") or "prompt") for row in rows]
    # Prompts are numbered within their form, so that forms of the same scenes stay paired.
    index = np.zeros(len(rows), dtype=np.int64)
    for form in dict.fromkeys(forms):
        members = [position for position, name in enumerate(forms) if name == form]
        index[members] = np.arange(len(members))
    return pa.table(
        [forms, index, [str(row["prompt"]) for row in rows], [None] * len(rows)], schema=PROMPTS
    )


def _read_rows(path: Path) -> list[dict[str, object]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            table_rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
            return table_rows
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            return [json.loads(line) for line in lines if line.strip()]
        if path.suffix == ".csv":
            from pyarrow import csv

            csv_rows: list[dict[str, object]] = csv.read_csv(path).to_pylist()
            return csv_rows
        if path.suffix == ".txt":
            lines = path.read_text(encoding="utf-8").splitlines()
            return [{"prompt": line.strip()} for line in lines if line.strip()]
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise ConfigError(f"The prompt file {path} is unreadable ({error}).") from error
    raise ConfigError(f"The prompt file {path} must be .parquet, .jsonl, .csv or .txt.")
