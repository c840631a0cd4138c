"""Small real things for the tests: a tiny CLIP on disk, drawn pictures, a dataset of tars."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from curate.store.contract import SAMPLES, sample_key
from curate.store.dataset import Dataset
from curate.store.shards import write_shard

CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def tiny_clip(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """A config .json and random weights .safetensors of a CLIP that runs in microseconds."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = open_clip.CLIP(**json.loads(json.dumps(CLIP_CONFIG)))
    config, weights = folder / "tiny.json", folder / f"tiny{seed}.safetensors"
    config.write_text(json.dumps(CLIP_CONFIG))
    save_file(dict(model.state_dict()), weights)
    return config, weights


def tiny_head(path: Path, seed: int = 0, output: str = "score", width: int = 16) -> Path:
    """A random two-layer ReLU head on the tiny CLIP's embedding."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    layers = {
        "layers.0.weight": torch.randn(8, width, generator=random),
        "layers.0.bias": torch.randn(8, generator=random),
        "layers.1.weight": torch.randn(1, 8, generator=random),
        "layers.1.bias": torch.randn(1, generator=random),
    }
    save_file(layers, path, metadata={"activation": "relu", "output": output})
    return path


def drawn(seed: int, width: int = 96, height: int = 96) -> NDArray[np.uint8]:
    """A smooth random picture with structure at several scales: (height, width, 3) uint8."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 70), (6, 45), (12, 30)):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        picture += (fine - 128) * weight / 70
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


def encoded(picture: NDArray[np.uint8], form: str = "PNG", **options: object) -> bytes:
    """The picture as a file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, form, **options)
    return stream.getvalue()


def make_dataset(
    directory: Path, shards: list[list[tuple[bytes, str | None]]], failed: int = 1
) -> Dataset:
    """A dataset as the download leaves it: (image file, alt text) a shard, and failed rows."""
    dataset = Dataset.create(directory, {"made": "by a test"}, {})
    row = 0
    for number, samples in enumerate(shards):
        shard, records, members = f"{number:05d}", [], []
        for image, text in [*samples, *[(None, "gone")] * failed]:
            url = f"http://example.com/{row}.png"
            key = sample_key(url, text)
            record = dict.fromkeys(SAMPLES.names) | {
                "key": key,
                "shard": shard,
                "row": row,
                "url": url,
                "alt_text": text,
                "status": "failed" if image is None else "stored",
                "reason": "http_404" if image is None else None,
            }
            if image is not None:
                try:
                    width, height = Image.open(io.BytesIO(image)).size
                except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                    width, height = 50, 50
                record |= {
                    "width": width,
                    "height": height,
                    "format": "png",
                    "original_width": width,
                    "original_height": height,
                    "sha256": f"{hash_of(image)}",
                }
                members.append((key, {"png": image, "txt": (text or "").encode(), "json": b"{}"}))
            records.append(record)
            row += 1
        table = pa.Table.from_pylist(records, schema=SAMPLES)
        dataset.write_table("samples", table, shard)
        write_input(dataset, shard, table)
        write_shard(dataset.shard_path(shard), members)
    return dataset


def hash_of(content: bytes) -> str:
    """sha256, hex."""
    import hashlib

    return hashlib.sha256(content).hexdigest()


def write_input(dataset: Dataset, shard: str, table: pa.Table) -> None:
    """The rows of the input list of one shard."""
    import pyarrow.parquet as pq

    path = dataset.input_path(shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.select(["key", "url", "alt_text"]), path)
