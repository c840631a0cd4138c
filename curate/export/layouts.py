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

`--layout my_module:MyLayout`, or an entry point of the group `caption_lab.export_layouts`, is a
`Layout` of your own.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.base.files import atomic_path
from curate.base.registry import load
from curate.export.pictures import PictureReader
from curate.export.plan import Plan
from curate.export.settings import FOLDER_LAYOUTS, ExportSettings
from curate.store.shards import write_shard

_PLACE = frozenset({"shard", "extension", "offset", "size"})
_ROWS_AT_A_TIME = 256  # pictures of a Parquet row group


class Layout(ABC):
    """One way of writing. `shard_path` exists exactly when the shard is whole."""

    pattern: ClassVar[str]
    """Glob of the shards, for the dataset card."""
    holds_weights: ClassVar[bool] = True
    """Whether its readers find the weights of a balanced selection: the plan's column `weight`."""

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


BUILTIN: Mapping[str, str] = {
    "webdataset": "curate.export.layouts:WebDataset",
    "parquet": "curate.export.layouts:ParquetFiles",
    "huggingface": "curate.export.folder_layouts:ImageFolder",
    "kohya": "curate.export.folder_layouts:Kohya",
    "simpletuner": "curate.export.folder_layouts:SimpleTuner",
}


def find_layout(settings: ExportSettings) -> type[Layout]:
    """The layout that the settings ask for: ours, or `--layout` of a package or a module of yours.

    Raises:
        ConfigError: nobody has it, or it is no Layout.
    """
    ours = settings.layout in FOLDER_LAYOUTS
    name = settings.format if ours and settings.format != "folder" else settings.layout
    found = load("export_layouts", name, BUILTIN)
    if not (isinstance(found, type) and issubclass(found, Layout)):
        raise ConfigError(f"The layout {name!r} is no class that derives from {__name__}.Layout.")
    if left := sorted(found.__abstractmethods__):
        raise ConfigError(f"The layout {name!r} does not define {', '.join(left)}.")
    return found


def samples_of(rows: pa.Table, reader: PictureReader) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each sample with its picture; memory is one picture and a thousand rows."""
    for batch in rows.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            yield row, reader.read(row["key"], row["shard"], row["offset"], row["size"])


def described(row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's fields for JSON, the caption under `text`, as readers expect it."""
    fields = {"text" if n == "caption" else n: v for n, v in row.items() if n not in _PLACE}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in fields.items()
    }


def as_json(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, default=str)


def json_features(columns: pa.Schema) -> list[dict[str, Any]]:
    """Name and dtype of the fields that `described` gives; what JSON knows not is text there."""
    fields = []
    for field in columns:
        if field.name not in _PLACE:
            plain = pa.types.is_boolean(field.type) or pa.types.is_integer(field.type)
            number = plain or pa.types.is_floating(field.type)
            name = "text" if field.name == "caption" else field.name
            fields.append({"name": name, "dtype": dtype_name(field.type) if number else "string"})
    return fields


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
                    "json": as_json(described(row)).encode(),
                },
            )
            for row, picture in samples_of(rows, reader)
        )
        write_shard(self.shard_path(number), samples)

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
                    for row, picture in samples_of(some, reader)
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
        features[name] = {"dtype": dtype_name(field.type), "_type": "Value"}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=note)


def dtype_name(kind: pa.DataType) -> str:
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return names.get(str(kind), str(kind))
