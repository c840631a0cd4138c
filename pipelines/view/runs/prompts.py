"""The prompts of a study with what each arm made of them: filtered, sorted, a window at a time.

A prompt's order is a list of ids, of which the last few are kept; all else is asked of
images.parquet, so memory grows with the prompts and not with the pictures.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curate.base.errors import ConfigError
from curate.base.settings import nearest
from curate.store.scans import parquet_scan, sql_name
from pipelines.ablation.metrics import ordered
from pipelines.ablation.schemas import metric_names
from pipelines.view.runs.tables import rows

KEPT_ORDERS = 16


@dataclass(frozen=True)
class Wanted:
    """Which prompts, in which order. Empty texts take everything.

    Attributes:
        text: words that stand in the prompt, whatever their case.
        by: metric; with `a` and `b`, prompts are sorted by a - b, means over seeds and noises.
        down: the largest difference first.
    """

    form: str = ""
    wording: str = ""
    category: str = ""
    held_out: str = ""
    text: str = ""
    by: str = ""
    a: str = ""
    b: str = ""
    sort: str = ""
    down: bool = True


class Prompts:
    """images.parquet of a study. For many threads."""

    def __init__(self, images: Path, prompts: Path) -> None:
        """
        Args:
            images: results/images.parquet.
            prompts: prompts.parquet with intents and questions; may be missing.

        Raises:
            DatasetError: a table cannot be read.
        """
        self._connection = duckdb.connect()
        self._images = parquet_scan(images, file_row_number=True)
        described = self.ask(f"DESCRIBE SELECT * FROM {parquet_scan(images)}")
        self.metrics = ordered(metric_names(row["column_name"] for row in described))
        self.ask(
            "CREATE TABLE prompt AS SELECT prompt_id, min(file_row_number) AS place, "
            "any_value(form) AS form, any_value(wording) AS wording, "
            "any_value(category) AS category, any_value(held_out) AS held_out, "
            f"any_value(prompt) AS prompt FROM {self._images} GROUP BY prompt_id"
        )
        intents = (
            f"SELECT prompt_id, any_value(intent) AS intent, any_value(questions) AS questions "
            f"FROM {parquet_scan(prompts)} GROUP BY prompt_id"
            if prompts.exists()
            else "SELECT '' AS prompt_id, NULL AS intent, NULL AS questions WHERE false"
        )
        self.ask(f"CREATE TABLE intent AS {intents}")
        self._orders: OrderedDict[Wanted, list[str]] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """The result of a query; DatasetError where a file cannot be read."""
        return rows(self._connection, sql, parameters)

    def facts(self) -> dict[str, Any]:
        """What there is to filter by, and how much of it."""
        forms: dict[str, list[str]] = {}
        for row in self.ask(
            "SELECT form, wording, min(place) AS place FROM prompt GROUP BY ALL ORDER BY place"
        ):
            forms.setdefault(row["form"], []).append(row["wording"])
        categories = self.ask("SELECT DISTINCT category FROM prompt ORDER BY 1")
        total = self.ask(
            "SELECT count(*) AS total, count(*) FILTER (held_out) AS held_out FROM prompt"
        )[0]
        noises = self.ask(f"SELECT DISTINCT noise FROM {self._images} ORDER BY 1")
        return {
            "forms": forms,
            "categories": [row["category"] for row in categories if row["category"]],
            "noises": [row["noise"] for row in noises],
            **total,
        }

    def order(self, wanted: Wanted) -> list[str]:
        """Ids of the prompts, in their order.

        Raises:
            ConfigError: no such metric.
        """
        with self._lock:
            if wanted in self._orders:
                self._orders.move_to_end(wanted)
                return self._orders[wanted]
        found = self._ordered(wanted)
        with self._lock:
            self._orders[wanted] = found
            while len(self._orders) > KEPT_ORDERS:
                self._orders.popitem(last=False)
        return found

    def _ordered(self, wanted: Wanted) -> list[str]:
        given: dict[str, Any] = {}
        limits = ["true"]
        for name in ("form", "wording", "category"):
            if value := getattr(wanted, name):
                limits.append(f"{name} = ${name}")
                given[name] = value
        if wanted.held_out:
            limits.append("held_out" if wanted.held_out == "1" else "NOT coalesce(held_out, false)")
        if wanted.text:
            limits.append("contains(lower(prompt), lower($text))")
            given["text"] = wanted.text
        joined, by = "", "place"
        if wanted.sort == "difference":
            joined = f"LEFT JOIN ({self._differences(wanted.by)}) USING (prompt_id)"
            by = f"difference {'DESC' if wanted.down else 'ASC'} NULLS LAST, place"
            given |= {"a": wanted.a, "b": wanted.b}
        sql = f"SELECT prompt_id FROM prompt {joined} WHERE {' AND '.join(limits)} ORDER BY {by}"
        return [row["prompt_id"] for row in self.ask(sql, **given)]

    def _differences(self, by: str) -> str:
        metric = sql_name(self.metric(by))
        mean = f"avg({metric}) FILTER (isfinite({metric}) AND arm = "
        return (
            f"SELECT prompt_id, {mean}$a) - {mean}$b) AS difference FROM {self._images} "
            "WHERE arm IN ($a, $b) GROUP BY prompt_id"
        )

    def metric(self, name: str) -> str:
        """The metric of this name; ConfigError where there is none."""
        if name not in self.metrics:
            raise ConfigError(f"There is no metric {name!r}; {nearest(name, self.metrics)}")
        return name

    def window(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The prompts of these ids, in their order."""
        found = self.ask(
            "SELECT * FROM prompt LEFT JOIN intent USING (prompt_id) "
            "WHERE prompt_id IN (SELECT unnest($ids))",
            ids=list(ids),
        )
        by_id = {row["prompt_id"]: row for row in found}
        return [by_id[one] for one in ids if one in by_id]

    def scores(
        self, ids: Sequence[str], noise: int, cells: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """(prompt, arm) -> its row of images.parquet, of one seed an arm."""
        listed = ", ".join(map(sql_name, self.metrics))
        found = self.ask(
            f"SELECT prompt_id, arm, seed, picture_id{', ' if listed else ''}{listed} "
            f"FROM {self._images} "
            "WHERE noise = $noise AND prompt_id IN (SELECT unnest($ids))",
            ids=list(ids),
            noise=noise,
        )
        shown = set(cells)
        return {
            (row["prompt_id"], row["arm"]): row
            for row in found
            if (row["arm"], row["seed"]) in shown
        }

    def means(self, ids: Sequence[str], by: str) -> dict[tuple[str, str], float]:
        """(prompt, arm) -> mean of a metric over seeds and noises."""
        metric = sql_name(self.metric(by))
        found = self.ask(
            f"SELECT prompt_id, arm, avg({metric}) AS mean FROM {self._images} "
            f"WHERE isfinite({metric}) AND prompt_id IN (SELECT unnest($ids)) GROUP BY ALL",
            ids=list(ids),
        )
        return {(row["prompt_id"], row["arm"]): row["mean"] for row in found}

    def intent(self, prompt: str) -> str | None:
        """What a prompt means, as prompts.parquet has it."""
        found = self.ask("SELECT intent FROM intent WHERE prompt_id = $id", id=prompt)
        return found[0]["intent"] if found else None
