"""The pictures of a study: what its runs kept, what its results show, and what was meant.

A run's pictures lie in Parquet parts of at most 256; of a part, which may have a hundred MB, no
more than a few rows are held at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError, DatasetError
from curate.base.settings import load_settings
from curate.store.scans import parquet_scan
from pipelines.ablation.pictures import FOLDER, stored, webp_of
from pipelines.judges.world import scenes_of, world_config
from pipelines.judges.world_settings import WorldJudgeSettings
from pipelines.view.runs.tables import rows
from pipelines.world.render import render

AT_ONCE = 8
"""Rows of a part that are read together."""
MEANT_SIDE = 64
"""Pixels a side of a scene that is drawn here."""
Where = tuple[str, int, str, int]
"""Arm, seed, prompt and noise."""


class Drawn:
    """Finds pictures of an opened study. For many threads.

    Args:
        record: run.json of the study.
    """

    def __init__(self, study: Path, record: Mapping[str, Any]) -> None:
        self._runs = [study / row["run"] for row in record.get("runs", [])]
        self._lock, self._drawing = threading.Lock(), threading.Lock()
        self._places: dict[Path, tuple[int, dict[str, tuple[Path, int]]]] = {}
        self._connection = duckdb.connect()
        shown = study / "results" / "shown.parquet"
        self._shown = parquet_scan(shown) if shown.exists() else None
        found = self._of_shown(
            "SELECT arm, seed, prompt_id, noise, target_webp IS NOT NULL AS meant"
        )
        self.shown = {(r["arm"], r["seed"], r["prompt_id"], r["noise"]) for r in found}
        self._targets = {row["prompt_id"] for row in found if row["meant"]}
        # A judge of somebody else's name would be their code.
        own = (row for row in record.get("judges", []) if row.get("name") == "world")
        self._world = next((row.get("options") or {} for row in own), None)

    def has(self, cell: int, picture: str) -> bool:
        """Whether the run of a cell kept a picture."""
        return picture in self._of_run(self._runs[cell])

    def kept(self, cell: int, picture: str) -> bytes:
        """A picture as the run of a cell kept it.

        Raises:
            DatasetError: it did not.
        """
        if not 0 <= cell < len(self._runs):
            raise DatasetError("This study has no such run any more; load the page again.")
        place = self._of_run(self._runs[cell]).get(picture)
        if place is None:
            raise DatasetError(f"{self._runs[cell]} keeps no picture {picture[:40]!r}.")
        path, row = place
        try:
            with pq.ParquetFile(path) as part:
                for batch in part.iter_batches(AT_ONCE, columns=["webp"]):
                    if row < batch.num_rows:
                        return bytes(batch.column(0)[row].as_py())
                    row -= batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{path} is unreadable ({error}).") from error
        raise DatasetError(f"{path} is being written; look again in a moment.")

    def of_results(self, where: Where) -> bytes:
        """A picture that stands in the study's own results.

        Raises:
            DatasetError: it does not.
        """
        found = self._of_shown(
            "SELECT webp",
            "WHERE arm = $arm AND seed = $seed AND prompt_id = $prompt AND noise = $noise",
            dict(zip(("arm", "seed", "prompt", "noise"), where, strict=True)),
        )
        if not found:
            raise DatasetError("The study's results hold no such picture.")
        return bytes(found[0]["webp"])

    def knows_meant(self, prompt: str, intent: str | None) -> bool:
        """Whether there is a picture of what a prompt means."""
        return prompt in self._targets or (self._world is not None and bool(intent))

    def meant(self, prompt: str, intent: str | None) -> bytes:
        """What a prompt means: as the results hold it, or a scene of the world, drawn now.

        Raises:
            DatasetError: nobody can draw it.
        """
        if prompt in self._targets:
            found = self._of_shown(
                "SELECT target_webp AS webp",
                "WHERE prompt_id = $prompt AND target_webp IS NOT NULL LIMIT 1",
                {"prompt": prompt},
            )
            return bytes(found[0]["webp"])
        if self._world is None or not intent:
            raise DatasetError("Nobody can draw what this prompt means.")
        options = load_settings(WorldJudgeSettings, None, self._world)
        try:
            scenes = scenes_of(pa.table({"intent": [intent]}))
        except ConfigError as error:
            raise DatasetError(str(error)) from error
        with self._drawing:  # the first one makes the templates of all
            return webp_of(render(scenes, world_config(options.world), MEANT_SIDE)[0])

    def _of_run(self, run: Path) -> dict[str, tuple[Path, int]]:
        """Picture -> its part and row, read again when the run has drawn more."""
        folder = run / FOLDER
        mark = folder.stat().st_mtime_ns if folder.exists() else 0
        with self._lock:
            known = self._places.get(run)
            if known is None or known[0] != mark:
                known = self._places[run] = mark, stored(run)
            return known[1]

    def _of_shown(
        self, select: str, where: str = "", given: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        if self._shown is None:
            return []
        return rows(self._connection, f"{select} FROM {self._shown} {where}", given)
