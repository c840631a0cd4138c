"""What a study keeps: arms and seeds with their pictures and scores, as study.json lists them.

It needs no dataset and no model, so that kept pictures may be judged, and tables be made, anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import DatasetError
from curate.base.files import atomic_path, read_record, write_json
from curate.base.settings import load_settings
from pipelines.ablation.judged import JudgeSpec
from pipelines.ablation.pictures import Asked
from pipelines.ablation.settings import AblateSettings

RECORD, PROMPTS_FILE = "study.json", "prompts.parquet"


@dataclass(frozen=True)
class KeptCell:
    """One arm and seed: where its pictures are, and how they were drawn."""

    arm: str
    seed: int
    directory: Path
    run_id: str
    sampling: Mapping[str, Any]

    def wanted(self, asked: Asked) -> pa.Table:
        """Its pictures: a row each, see `Asked.of`."""
        return asked.of(self.run_id, self.sampling)


@dataclass(frozen=True)
class Kept:
    """A study as it lies on disk.

    Attributes:
        record: study.json.
    """

    out: Path
    record: Mapping[str, Any]
    settings: AblateSettings
    cells: list[KeptCell]
    asked: Asked
    judges: list[JudgeSpec]

    @property
    def device(self) -> str:
        """Where its models were trained and judges judge."""
        return str(self.record["device"])

    @staticmethod
    def open(out: Path) -> Kept:
        """
        Raises:
            DatasetError: there is no study in `out`, or its prompts are gone.
        """
        if not (out / RECORD).exists() or not (out / PROMPTS_FILE).exists():
            raise DatasetError(
                f"{out} is not a study; `caplab ablate DATASET --out {out}` makes one."
            )
        record = read_record(out / RECORD)
        settings = load_settings(AblateSettings, None, record["settings"])
        cells = [
            KeptCell(row["arm"], row["seed"], out / row["run"], row["run_id"], row["sampling"])
            for row in record["runs"]
        ]
        asked = Asked(pq.read_table(out / PROMPTS_FILE), settings.noises, settings.generation_seed)
        judges = [
            JudgeSpec(row["name"], row["options"], row["id"], tuple(row["limits"]))
            for row in record["judges"]
        ]
        return Kept(out, record, settings, cells, asked, judges)

    def with_judge(self, spec: JudgeSpec) -> Kept:
        """The study with one more judge, as it is recorded from now on."""
        others = [own for own in self.judges if own.id != spec.id]
        judges = [*others, spec]
        record = {**self.record, "judges": [own.told() for own in judges]}
        write_json(self.out / RECORD, record)
        return Kept(self.out, record, self.settings, self.cells, self.asked, judges)


def write_prompts(out: Path, asked: Asked) -> None:
    """Keep what every run of a study is asked to draw."""
    with atomic_path(out / PROMPTS_FILE) as temporary:
        pq.write_table(asked.prompts, temporary)
