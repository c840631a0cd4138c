"""How shards are written for readers of datasets: WebDataset, Parquet, Hugging Face's imagefolder.

webdataset   shards/00000.tar with KEY.jpg, KEY.txt (the caption), KEY.json
parquet      data/train-00000-of-00042.parquet, pictures as Hugging Face's Image feature
folder       huggingface   train/00000/KEY.jpg and metadata.jsonl (imagefolder)
             kohya, simpletuner: curate.export.trainer_folders
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.files import atomic_path
from curate.export.layout import (
    PLACE,
    Folders,
    Layout,
    as_json,
    described,
    dtype,
    json_features,
    samples,
)
from curate.export.pictures import PictureReader
from curate.export.plan import Plan
from curate.export.settings import ExportSettings
from curate.export.trainer_folders import Kohya, SimpleTuner
from curate.store.shards import write_shard

_ROWS_AT_A_TIME = 256  # pictures of a Parquet row group


def make_layout(out: Path, settings: ExportSettings, plan: Plan) -> Layout:
    """The layout that the settings ask for."""
    folders: Mapping[str, type[Layout]] = {
        "huggingface": ImageFolder,
        "kohya": Kohya,
        "simpletuner": SimpleTuner,
    }
    kinds: Mapping[str, type[Layout]] = {"webdataset": WebDataset, "parquet": ParquetFiles}
    kind = folders[settings.layout] if settings.format == "folder" else kinds[settings.format]
    return kind(out, settings, plan)


class WebDataset(Layout):
    """Tars in the layout of img2dataset."""

    pattern = "shards/*.tar"

    def shard_path(self, number: int) -> Path:
        return self.out / "shards" / f"{number:05d}.tar"

    def write(self, number: int, rows: pa.Table, reader: PictureReader) -> None:
        members = (
            (
                row["key"],
                {
                    row["extension"]: picture,
                    "txt": row["caption"].encode(),
                    "json": as_json(described(row)).encode(),
                },
            )
            for row, picture in samples(rows, reader)
        )
        write_shard(self.shard_path(number), members)

    def features(
        self, columns: pa.Schema, extensions: Sequence[str]
    ) -> list[dict[str, Any]] | None:
        return [
            *({"name": extension, "dtype": "image"} for extension in extensions),
            {"name": "txt", "dtype": "string"},
            {"name": "json", "struct": json_features(columns)},
            {"name": "__key__", "dtype": "string"},
            {"name": "__url__", "dtype": "string"},
        ]

    def read_as(self) -> str:
        last = max(self.plan.shards - 1, 0)
        return (
            "import webdataset as wds\n\n"
            f'shards = "shards/{{00000..{last:05d}}}.tar"\n'
            'dataset = wds.WebDataset(shards).decode("pil").to_tuple("jpg;png;webp", "txt", "json")'
        )


class ParquetFiles(Layout):
    """Parquet with the pictures inside, as `datasets` stores its Image feature."""

    pattern = "data/*.parquet"

    def shard_path(self, number: int) -> Path:
        return self.out / "data" / f"train-{number:05d}-of-{self.plan.shards:05d}.parquet"

    def write(self, number: int, rows: pa.Table, reader: PictureReader) -> None:
        schema = _image_schema(rows.schema)
        with (
            atomic_path(self.shard_path(number)) as temporary,
            pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
        ):
            for start in range(0, rows.num_rows, _ROWS_AT_A_TIME):
                some = rows.slice(start, _ROWS_AT_A_TIME)
                pictures = [
                    {"bytes": picture, "path": f"{row['key']}.{row['extension']}"}
                    for row, picture in samples(some, reader)
                ]
                columns = [pa.array(pictures, schema.field("image").type)]
                columns += [some.column("caption" if n == "text" else n) for n in schema.names[1:]]
                writer.write_table(pa.table(columns, schema=schema))

    def read_as(self) -> str:
        return (
            "from datasets import load_dataset\n\n"
            f'dataset = load_dataset("{self.out.name}", split="train")\n'
            'dataset[0]["image"], dataset[0]["text"]'
        )


def _image_schema(rows: pa.Schema) -> pa.Schema:
    """The columns of the Parquet, with the notes by which `datasets` knows them."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [pa.field("image", picture)]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for field in rows:
        if field.name in PLACE:
            continue
        name = "text" if field.name == "caption" else field.name
        fields.append(pa.field(name, field.type))
        features[name] = {"dtype": dtype(field.type), "_type": "Value"}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=note)


class ImageFolder(Folders):
    """`imagefolder` of Hugging Face: metadata.jsonl in each folder."""

    where = "train"
    pattern = "train/**"

    def fill(self, folder: Path, rows: pa.Table, reader: PictureReader) -> None:
        with open(folder / "metadata.jsonl", "w", encoding="utf-8") as lines:
            for row, picture in samples(rows, reader):
                name = f"{row['key']}.{row['extension']}"
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
