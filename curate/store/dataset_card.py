"""README.md of a dataset directory, by which `datasets.load_dataset(DIR)` finds the tables."""

from __future__ import annotations

from typing import Any

import yaml

from curate.base.files import write_text
from curate.store.dataset import Dataset

_OURS = "<!-- Written by caplab; without this line it is yours and stays as it is. -->"
# Table -> its files below the directory. The first is what a user gets who names none.
_CONFIGS = {
    "samples": "tables/samples/*.parquet",
    "captions": "tables/captions/*/*.parquet",
    "scores": "tables/scores/*.parquet",
}


def write_dataset_card(dataset: Dataset) -> None:
    """Write README.md for the tables that are there; one that is not ours is left alone."""
    path = dataset.directory / "README.md"
    if path.exists() and _OURS not in path.read_text(encoding="utf-8", errors="replace"):
        return
    tables = [table for table in _CONFIGS if dataset.has_table(table)]
    if not tables:
        return
    configs: list[dict[str, Any]] = []
    for table in tables:
        files = [{"split": "train", "path": _CONFIGS[table]}]
        configs.append({"config_name": table, "data_files": files})
    configs[0]["default"] = True
    front = {"configs": configs}
    calls = "\n".join(f'load_dataset("DIR", "{table}", split="train")' for table in tables)
    text = (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n{_OURS}\n\n"
        "A dataset of Caption Lab: the pictures lie in `shards/` (WebDataset), everything else in "
        "Parquet below `tables/`. `caplab export` writes a dataset to share.\n\n"
        f"```python\nfrom datasets import load_dataset\n\n{calls}\n```\n"
    )
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
