"""How shards are written: WebDataset, Parquet, and folders for three readers.

    webdataset   shards/00000.tar with KEY.jpg, KEY.txt (the caption), KEY.json
    parquet      data/train-00000-of-00042.parquet, pictures as Hugging Face's Image feature
    folder       huggingface   train/00000/KEY.jpg and metadata.jsonl (imagefolder)
                 kohya         images/00000/KEY.jpg, KEY.txt; images/00000.json; dataset.toml;
                               finetune.toml
                 simpletuner   images/00000/KEY.jpg, KEY.txt; metadata.parquet;
                               multidatabackend.json

A shard is written beside its place and renamed, so one that is there is whole. Pictures' bytes are
those of the dataset, unchanged.

sd-scripts reads pictures that lie directly in an `image_dir`, so each shard is a subset of its own;
of a caption it takes the first line only, from a .txt and from the JSON alike, so captions are
written as one line. The JSON's keys are whole paths with the extension: every version opens those,
while names without an extension, and names below `image_dir`, are each found by some alone.
SimpleTuner takes each line of a .txt as a caption of its own unless `disable_multiline_split` says
otherwise, and finds a row of metadata.parquet by the file's path below `instance_data_dir`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.files import atomic_path, temporary_path, write_json, write_text
from curate.export.pictures import PictureReader
from curate.export.plan import Plan
from curate.export.settings import ExportSettings
from curate.store.shards import write_shard

_PLACE = frozenset({"shard", "extension", "offset", "size"})
_ROWS_AT_A_TIME = 256  # pictures of a Parquet row group
_DEFAULT_RESOLUTION = 512


class Layout(ABC):
    """One way of writing. `shard_path` exists exactly when the shard is whole."""

    pattern: ClassVar[str]
    """Glob of the shards, for the dataset card."""

    def __init__(self, out: Path, settings: ExportSettings, plan: Plan) -> None:
        """`out` is the export's directory."""
        self.out, self.settings, self.plan = out, settings, plan

    @abstractmethod
    def shard_path(self, number: int) -> Path:
        """File or folder of one shard."""

    @abstractmethod
    def write(self, number: int, rows: pa.Table, reader: PictureReader) -> None:
        """Write one shard."""

    def finish(self) -> None:
        """Write what stands once for all shards. Default: nothing."""
        return

    def features(
        self, columns: pa.Schema, extensions: Sequence[str]
    ) -> list[dict[str, Any]] | None:
        """What `datasets` shall take the fields for, as a dataset card says it; None = it can tell.

        Where it has to guess from the first samples, a field that is null there gets no type, and
        the first value ends the reading.

        Args:
            columns: of the plan.
            extensions: of the pictures.
        """
        return None

    def read_as(self) -> str:
        """Python or a command that reads the export, for the dataset card."""
        return f'load_dataset("{self.out.name}")'


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


def _samples(rows: pa.Table, reader: PictureReader) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each sample with its picture; memory is one picture and a thousand rows."""
    for batch in rows.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            yield row, reader.read(row["key"], row["shard"], row["offset"], row["size"])


def _described(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's fields for JSON, the caption under `text`, as readers expect it."""
    fields = {"text" if n == "caption" else n: v for n, v in row.items() if n not in _PLACE}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }


def _json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=str)


def _json_features(columns: pa.Schema) -> list[dict[str, Any]]:
    """Name and dtype of the fields that `_described` gives; what JSON knows not is text there."""
    described = []
    for field in columns:
        if field.name not in _PLACE:
            plain = pa.types.is_boolean(field.type) or pa.types.is_integer(field.type)
            number = plain or pa.types.is_floating(field.type)
            name = "text" if field.name == "caption" else field.name
            described.append({"name": name, "dtype": _dtype(field.type) if number else "string"})
    return described


class WebDataset(Layout):
    """Tars in the layout of img2dataset."""

    pattern = "shards/*.tar"

    def shard_path(self, number: int) -> Path:
        return self.out / "shards" / f"{number:05d}.tar"

    def write(self, number: int, rows: pa.Table, reader: PictureReader) -> None:
        samples = (
            (
                row["key"],
                {
                    row["extension"]: picture,
                    "txt": row["caption"].encode(),
                    "json": _json(_described(row)).encode(),
                },
            )
            for row, picture in _samples(rows, reader)
        )
        write_shard(self.shard_path(number), samples)

    def features(
        self, columns: pa.Schema, extensions: Sequence[str]
    ) -> list[dict[str, Any]] | None:
        return [
            *({"name": extension, "dtype": "image"} for extension in extensions),
            {"name": "txt", "dtype": "string"},
            {"name": "json", "struct": _json_features(columns)},
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
                    for row, picture in _samples(some, reader)
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
        if field.name in _PLACE:
            continue
        name = "text" if field.name == "caption" else field.name
        fields.append(pa.field(name, field.type))
        features[name] = {"dtype": _dtype(field.type), "_type": "Value"}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=note)


def _dtype(kind: pa.DataType) -> str:
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return names.get(str(kind), str(kind))


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

    @abstractmethod
    def fill(self, folder: Path, rows: pa.Table, reader: PictureReader) -> None:
        """Write the files of a shard."""

    def beside(self, number: int, rows: pa.Table) -> None:
        """Write what belongs to a shard and lies beside its folder."""
        return


class ImageFolder(_Folders):
    """`imagefolder` of Hugging Face: metadata.jsonl in each folder."""

    where = "train"
    pattern = "train/**"

    def fill(self, folder: Path, rows: pa.Table, reader: PictureReader) -> None:
        with open(folder / "metadata.jsonl", "w", encoding="utf-8") as lines:
            for row, picture in _samples(rows, reader):
                name = f"{row['key']}.{row['extension']}"
                (folder / name).write_bytes(picture)
                lines.write(_json({"file_name": name, **_described(row)}) + "\n")

    def features(
        self, columns: pa.Schema, extensions: Sequence[str]
    ) -> list[dict[str, Any]] | None:
        return [{"name": "image", "dtype": "image"}, *_json_features(columns)]

    def read_as(self) -> str:
        return (
            "from datasets import load_dataset\n\n"
            f'dataset = load_dataset("{self.out.name}", split="train")'
        )


def _one_line(caption: str) -> str:
    return " ".join(caption.split())


class Kohya(_Folders):
    """sd-scripts: captions as .txt (DreamBooth method) and as JSON (fine-tuning method)."""

    where = "images"
    pattern = "images/**"

    def fill(self, folder: Path, rows: pa.Table, reader: PictureReader) -> None:
        for row, picture in _samples(rows, reader):
            (folder / f"{row['key']}.{row['extension']}").write_bytes(picture)
            (folder / f"{row['key']}.txt").write_text(_one_line(row["caption"]), encoding="utf-8")

    def beside(self, number: int, rows: pa.Table) -> None:
        path = self.shard_path(number)
        described = {
            str(path / f"{row['key']}.{row['extension']}"): {"caption": _one_line(row["caption"])}
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

    def fill(self, folder: Path, rows: pa.Table, reader: PictureReader) -> None:
        for row, picture in _samples(rows, reader):
            (folder / f"{row['key']}.{row['extension']}").write_bytes(picture)
            (folder / f"{row['key']}.txt").write_text(row["caption"], encoding="utf-8")

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
                "filename": f"{number:05d}/{row['key']}.{row['extension']}",
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
