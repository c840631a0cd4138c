"""Layouts of folders, for three readers: imagefolder, sd-scripts (kohya), SimpleTuner.

sd-scripts reads pictures that lie directly in an `image_dir`, so each shard is a subset of its own;
of a caption it takes the first line only, from a .txt and from the JSON alike, so captions are
written as one line. The JSON's keys are whole paths with the extension: every version opens those,
while names without an extension, and names below `image_dir`, are each found by some alone.
SimpleTuner takes each line of a .txt as a caption of its own unless `disable_multiline_split` says
otherwise, and finds a row of metadata.parquet by the file's path below `instance_data_dir`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.files import atomic_path, temporary_path, write_json, write_text
from curate.export.layouts import Layout, as_json, described, json_features, samples_of
from curate.export.pictures import PictureReader

_DEFAULT_RESOLUTION = 512


def _file_name(row: Mapping[str, Any]) -> str:
    return f"{row['key']}.{row['extension']}"


class _Folders(Layout):
    """A folder of pictures a shard."""

    where: ClassVar[str]

    def shard_path(self, number: int) -> Path:
        return self.out / self.where / f"{number:05d}"

    def write(self, number: int, rows: pa.Table, reader: PictureReader) -> None:
        path = self.shard_path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(path)
        shutil.rmtree(temporary, ignore_errors=True)  # of an earlier try of this same process
        temporary.mkdir()
        self.fill(temporary, rows, reader)
        os.sync()  # one flush for all files of the shard, before the rename makes them count
        self.beside(number, rows)
        os.replace(temporary, path)

    def fill(self, folder: Path, rows: pa.Table, reader: PictureReader) -> None:
        """Write the files of a shard: each picture, and its caption as .txt."""
        for row, picture in samples_of(rows, reader):
            (folder / _file_name(row)).write_bytes(picture)
            (folder / f"{row['key']}.txt").write_text(self.text(row["caption"]), encoding="utf-8")

    def text(self, caption: str) -> str:
        """A caption as its .txt holds it."""
        return caption

    def beside(self, number: int, rows: pa.Table) -> None:
        """Write what belongs to a shard and lies beside its folder."""
        return


class ImageFolder(_Folders):
    """`imagefolder` of Hugging Face: metadata.jsonl in each folder."""

    where = "train"
    pattern = "train/**"

    def fill(self, folder: Path, rows: pa.Table, reader: PictureReader) -> None:
        with open(folder / "metadata.jsonl", "w", encoding="utf-8") as lines:
            for row, picture in samples_of(rows, reader):
                name = _file_name(row)
                (folder / name).write_bytes(picture)
                lines.write(as_json({"file_name": name, **described(row)}) + "\n")

    def features(
        self, columns: pa.Schema, extensions: Sequence[str]
    ) -> list[dict[str, Any]] | None:
        return [{"name": "image", "dtype": "image"}, *json_features(columns)]

    def read_as(self) -> str:
        return (
            "from datasets import load_dataset\n\n"
            f'dataset = load_dataset("{self.out.name}", split="train")'
        )


class Kohya(_Folders):
    """sd-scripts: captions as .txt (DreamBooth method) and as JSON (fine-tuning method)."""

    where = "images"
    pattern = "images/**"
    holds_weights = False

    def text(self, caption: str) -> str:
        return " ".join(caption.split())  # its reader takes the first line only

    def beside(self, number: int, rows: pa.Table) -> None:
        path = self.shard_path(number)
        described = {
            str(path / _file_name(row)): {"caption": self.text(row["caption"])}
            for row in rows.select(["key", "extension", "caption"]).to_pylist()
        }
        write_json(path.with_suffix(".json"), described)

    def finish(self) -> None:
        for name, fine_tuning in (("dataset.toml", False), ("finetune.toml", True)):
            write_text(self.out / name, self._config(name, fine_tuning))

    def _config(self, name: str, fine_tuning: bool) -> str:
        side = self.settings.resolution or _DEFAULT_RESOLUTION
        lines = [
            f"# For sd-scripts: --dataset_config={name}. Paths are absolute, here and in the",
            "# images/*.json: after moving the folder, change them.",
            "",
            "[general]",
            *([] if fine_tuning else ['caption_extension = ".txt"']),
            "shuffle_caption = false",
            "enable_bucket = true",
            "bucket_no_upscale = true",
            "",
            "[[datasets]]",
            f"resolution = {side}",
            "batch_size = 1",
        ]
        for number in range(self.plan.shards):
            lines += ["", "  [[datasets.subsets]]"]
            # A JSON text is a TOML text as well.
            folder = self.shard_path(number)
            lines += [f"  image_dir = {json.dumps(str(folder))}"]
            if fine_tuning:
                lines += [f"  metadata_file = {json.dumps(str(folder.with_suffix('.json')))}"]
            lines += ["  num_repeats = 1"]
        return "\n".join(lines) + "\n"

    def read_as(self) -> str:
        return "accelerate launch sdxl_train_network.py --dataset_config=dataset.toml ..."


class SimpleTuner(_Folders):
    """SimpleTuner: a local backend whose sizes and captions stand in one Parquet."""

    where = "images"
    pattern = "images/**"
    holds_weights = False

    def finish(self) -> None:
        schema = pa.schema(
            [
                ("filename", pa.string()),  # below instance_data_dir
                ("caption", pa.string()),
                ("width", pa.int32()),
                ("height", pa.int32()),
                ("aspect_ratio", pa.float64()),
            ]
        )
        path = self.out / "metadata.parquet"
        with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
            for number in range(self.plan.shards):
                writer.write_table(pa.Table.from_pylist(list(self._rows(number)), schema))
        write_json(self.out / "multidatabackend.json", self._backends())

    def _rows(self, number: int) -> Iterator[dict[str, Any]]:
        rows = self.plan.shard_rows(number)
        wanted = ("key", "extension", "caption", "width", "height")
        for row in rows.select(wanted).to_pylist():
            yield {
                "filename": f"{number:05d}/{_file_name(row)}",
                "caption": row["caption"],
                "width": row["width"],
                "height": row["height"],
                "aspect_ratio": round(row["width"] / row["height"], 2),
            }

    def _backends(self) -> list[dict[str, Any]]:
        side = self.settings.resolution or _DEFAULT_RESOLUTION
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in self.out.name)
        pictures = {
            "id": name,
            "type": "local",
            "dataset_type": "image",
            "instance_data_dir": str(self.out / self.where),
            "caption_strategy": "parquet",
            "metadata_backend": "parquet",
            "disable_multiline_split": True,
            "parquet": {
                "path": str(self.out / "metadata.parquet"),
                "filename_column": "filename",
                "caption_column": "caption",
                "width_column": "width",
                "height_column": "height",
                "identifier_includes_extension": True,
            },
            "resolution": side,
            "resolution_type": "pixel_area",
            "minimum_image_size": 0,
            "crop": False,
            "repeats": 0,
            "cache_dir_vae": f"cache/vae/{name}",
        }
        texts = {
            "id": f"{name}-text-embeds",
            "type": "local",
            "dataset_type": "text_embeds",
            "default": True,
            "cache_dir": f"cache/text/{name}",
            "write_batch_size": 128,
        }
        return [pictures, texts]

    def read_as(self) -> str:
        return 'simpletuner train  # with "data_backend_config": "multidatabackend.json"'
