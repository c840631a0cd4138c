"""An export layout of your own: each shard a folder of pictures beside one list of their captions.

    PYTHONPATH=examples caplab export DATASET --captions short --out exports/listed \\
        --layout export_layout_of_your_own:Listed
"""

import json
from pathlib import Path

import pyarrow as pa

from curate.base.files import write_text
from curate.export.layouts import Layout, samples_of
from curate.export.pictures import PictureReader


class Listed(Layout):
    """lists/00000.jsonl, which is written last, and pictures/00000/KEY.jpg (png, webp)."""

    pattern = "lists/*.jsonl"

    def shard_path(self, number: int) -> Path:
        """The file that is there exactly when the shard is whole."""
        return self.out / "lists" / f"{number:05d}.jsonl"

    def write(self, number: int, rows: pa.Table, reader: PictureReader) -> None:
        folder = self.out / "pictures" / f"{number:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for row, picture in samples_of(rows, reader):
            name = f"{row['key']}.{row['extension']}"
            (folder / name).write_bytes(picture)
            lines.append(json.dumps({"file": name, "caption": row["caption"]}))
        write_text(self.shard_path(number), "\n".join(lines) + "\n")
