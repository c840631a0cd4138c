"""Exports are read back by the readers that they are made for."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from curate.base.settings import load_settings
from curate.export.layouts import Layout
from curate.export.run import export
from curate.export.settings import ExportSettings
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.caption_blend import BLEND, blend_bounds, drawn_kind, hash_uniform, key_numbers
from curate.store.captions import accepted_captions
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from tests.curate.tiny import drawn, encoded, make_dataset

EXAMPLES = Path(__file__).parents[3] / "examples"
BLENDED = {"descriptive": 0.7, "alt": 0.3}
LONG = 'First line.\nSecond line, « with » quotes "and" | bars.  '


def caption_rows(keys: list[str], kind: str, texts: list[str | None], **columns) -> pa.Table:
    rows = []
    for key, text in zip(keys, texts, strict=True):
        row = dict.fromkeys(CAPTIONS.names) | {"key": key, "kind": kind, "sample_index": 0}
        row |= {"text": text, "status": "ok" if text else "failed", "engine": "none"}
        row |= {"reason": None if text else "empty", **columns}
        rows.append(row)
    return pa.Table.from_pylist(rows, CAPTIONS)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """40 stored samples in two shards, 37 selected; two captioners' kinds, some texts missing."""
    pictures = [encoded(drawn(n, 40 + n, 48), "PNG") for n in range(40)]
    texts = [f"alt {n}" if n % 10 else None for n in range(40)]
    pairs = list(zip(pictures, texts, strict=True))
    made = make_dataset(tmp_path_factory.mktemp("data") / "set", [pairs[:25], pairs[25:]])
    for shard in made.shards():
        samples = made.read_table("samples", shard).to_pylist()
        stored = [sample for sample in samples if sample["status"] == "stored"]
        keys = [sample["key"] for sample in stored]
        alts = [sample["alt_text"] for sample in stored]
        made.write_table("captions", caption_rows(keys, "alt", alts), shard, "alt")
        model = {
            "engine": "http",
            "model": "org/captioner",
            "model_revision": "abc",
            "prompt_id": "p",
        }
        longs = [None if n == 3 else f"{LONG}{key}" for n, key in enumerate(keys)]
        rows = caption_rows(keys, "descriptive", longs, **model)
        made.write_table("captions", rows, shard, "writer")
        quality = [float(n) for n in range(len(keys))]
        scores = {"key": keys, "quality": quality, "imported_punsafe": quality}
        made.write_table("scores", pa.table(scores), shard)
    select(made, SelectSettings(name="good", where="quality < 24 and width < 78"))
    add_late_score(made)
    return made


def add_late_score(made: Dataset) -> None:
    """A score that the first dozen samples of an export of descriptive captions, by key, lack."""
    told = accepted_captions(made, ["descriptive"]).column("key").to_pylist()
    exported = sorted(set(told) & set(made.selection_keys("good")))
    rank = {key: n for n, key in enumerate(exported)}
    for shard in made.shards():
        scores = made.read_table("scores", shard)
        ranks = [rank.get(key, 0) for key in scores.column("key").to_pylist()]
        late = pa.array([n / 2 if n >= 12 else None for n in ranks], pa.float64())
        made.write_table("scores", scores.append_column("late", late), shard)


def run(dataset: Dataset, out: Path, **options):
    return export(dataset, out, ExportSettings(selection="good", samples_per_shard=10, **options))


def originals(dataset: Dataset) -> dict[str, bytes]:
    return {key: picture for s in dataset.shards() for key, picture, _ in iter_shard(dataset, s)}


def files_of(out: Path) -> dict[str, bytes]:
    """Every file of an export but its record, which holds the time."""
    skipped = {out / "export" / "export.json"}
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path not in skipped
    }


def tar_samples(out: Path) -> list[tuple[str, bytes, str, dict]]:
    found = []
    for path in sorted(out.glob("shards/*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            for picture, text, sidecar in zip(names[::3], names[1::3], names[2::3], strict=True):
                key = picture.partition(".")[0]
                assert {name.partition(".")[0] for name in (picture, text, sidecar)} == {key}
                content = [tar.extractfile(name).read() for name in (picture, text, sidecar)]
                found.append((key, content[0], content[1].decode(), json.loads(content[2])))
    return found


# ---- what is exported -------------------------------------------------------------------------


def test_selected_samples_are_exported_or_left_out_with_a_reason(dataset, tmp_path):
    summary = run(dataset, tmp_path / "out", captions=BLENDED)
    selected = dataset.selection_keys("good")
    left = pq.read_table(tmp_path / "out" / "export" / "left_out.parquet").to_pylist()
    samples = tar_samples(tmp_path / "out")
    assert summary.selected == len(selected) == len(samples) + len(left)
    assert {key for key, *_ in samples} | {row["key"] for row in left} == set(selected)
    reasons = Counter(row["reason"] for row in left)
    assert dict(reasons) == summary.left_out
    assert set(reasons) == {"no_alt_caption", "no_descriptive_caption"}


def test_pictures_are_copied_unchanged_and_captions_letter_for_letter(dataset, tmp_path):
    run(dataset, tmp_path / "out", captions="descriptive")
    pictures = originals(dataset)
    for key, picture, text, sidecar in tar_samples(tmp_path / "out"):
        assert picture == pictures[key]
        assert text == sidecar["text"] == f"{LONG}{key}"
        assert sidecar["imported_punsafe"] == sidecar["quality"]


def test_the_blend_is_that_of_training_for_the_same_seed(dataset, tmp_path):
    run(dataset, tmp_path / "out", captions=BLENDED, seed=5)
    samples = tar_samples(tmp_path / "out")
    keys = [key for key, *_ in samples]
    u = hash_uniform(key_numbers(keys), 0, 5, BLEND)
    kinds = np.array(["descriptive", "alt"])[drawn_kind(blend_bounds(BLENDED), u)]
    assert [sidecar["kind"] for *_, sidecar in samples] == kinds.tolist()
    assert len(set(kinds)) == 2


def test_a_missing_caption_can_fall_back_on_another_kind(dataset, tmp_path):
    summary = run(dataset, tmp_path / "out", captions=BLENDED, missing_captions="fallback")
    assert summary.left_out == {}
    for *_, text, sidecar in tar_samples(tmp_path / "out"):
        assert text.startswith("alt" if sidecar["kind"] == "alt" else "First")


def test_shards_are_equally_full_and_the_order_is_that_of_the_setting(dataset, tmp_path):
    run(dataset, tmp_path / "shuffled", captions="descriptive")
    run(dataset, tmp_path / "sorted", captions="descriptive", order="key")
    shuffled = [key for key, *_ in tar_samples(tmp_path / "shuffled")]
    ordered = [key for key, *_ in tar_samples(tmp_path / "sorted")]
    assert sorted(shuffled) == ordered
    assert shuffled != ordered
    sizes = []
    for path in sorted((tmp_path / "sorted" / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            sizes.append(len(tar.getnames()) // 3)
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-len(ordered) // 10)


# ---- readers ----------------------------------------------------------------------------------


def test_webdataset_reads_the_tars(dataset, tmp_path):
    import webdataset

    run(dataset, tmp_path / "out", captions="descriptive")
    shards = [str(path) for path in sorted((tmp_path / "out" / "shards").glob("*.tar"))]
    reader = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
    read = [(s["__key__"], s["png"].size, s["txt"]) for s in reader]
    expected = [
        (key, Image.open(io.BytesIO(picture)).size, text)
        for key, picture, text, _ in tar_samples(tmp_path / "out")
    ]
    assert read == expected


@pytest.mark.parametrize("kind", ["parquet", "folder", "webdataset"])
def test_hugging_face_loads_pictures_and_texts(dataset, tmp_path, kind):
    import datasets

    summary = run(dataset, tmp_path / "out", captions="descriptive", format=kind, order="key")
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=cache)
    assert loaded.num_rows == summary.samples
    pictures = originals(dataset)
    late = []
    for row in loaded:
        if kind == "webdataset":
            row = {"image": row["png"], **row["json"]}
        expected = Image.open(io.BytesIO(pictures[row["key"]]))
        assert np.array_equal(np.asarray(row["image"]), np.asarray(expected))
        assert row["text"] == f"{LONG}{row['key']}"
        assert row["quality"] == row["imported_punsafe"]
        late.append(row["late"])
    # Null in the first dozen rows, so that its type cannot be guessed from these.
    assert late.count(None) == 12
    assert sorted(filter(None, late)) == [n / 2 for n in range(12, len(late))]


def test_the_parquet_is_loaded_by_its_name_too(dataset, tmp_path):
    import datasets

    run(dataset, tmp_path / "out", captions="alt", format="parquet", scores=False)
    files = sorted(str(path) for path in (tmp_path / "out" / "data").glob("*.parquet"))
    loaded = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(loaded.features["image"], datasets.Image)
    assert isinstance(loaded[0]["image"], Image.Image)
    assert "quality" not in loaded.column_names


def sd_scripts_fine_tuning(subset: dict) -> dict[Path, str]:
    """Picture -> caption as FineTuningDataset of sd-scripts has them (library/train_util.py)."""
    metadata = json.loads(Path(subset["metadata_file"]).read_text(encoding="utf-8"))
    seen = {}
    for key, about in metadata.items():
        # A relative key is looked for below image_dir; older versions open a key that exists, and
        # else try it with every extension.
        path = Path(key) if os.path.isabs(key) else Path(subset["image_dir"], key)
        seen[path] = about["caption"].split("\n")[0]  # process_caption, without wildcards
    return seen


def sd_scripts_dreambooth(subset: dict) -> dict[Path, str]:
    """The same of DreamBoothDataset: the first line of the file beside each picture."""
    images = [path for path in Path(subset["image_dir"]).iterdir() if path.suffix == ".png"]
    return {
        path: path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0].strip()
        for path in images
    }


@pytest.mark.parametrize(
    ("config", "reader"),
    [("dataset.toml", sd_scripts_dreambooth), ("finetune.toml", sd_scripts_fine_tuning)],
)
def test_kohya_finds_every_picture_with_its_whole_caption(dataset, tmp_path, config, reader):
    out = tmp_path / "out [a]*"
    summary = run(dataset, out, captions="descriptive", format="folder", layout="kohya")
    read = tomllib.loads((out / config).read_text())
    assert ("caption_extension" in read["general"]) == (config == "dataset.toml")
    found = {}
    for subset in (subset for part in read["datasets"] for subset in part["subsets"]):
        found |= reader(subset)
    assert len(found) == summary.samples
    for path, caption in found.items():
        assert Image.open(path).format == "PNG"
        assert caption == " ".join(f"{LONG}{path.stem}".split())


def test_simpletuner_finds_every_picture_with_size_and_caption(dataset, tmp_path):
    out = tmp_path / "out"
    options = {"format": "folder", "layout": "simpletuner", "resolution": 1024}
    summary = run(dataset, out, captions="descriptive", **options)
    pictures, texts = json.loads((out / "multidatabackend.json").read_text())
    assert (texts["dataset_type"], texts["default"]) == ("text_embeds", True)
    assert pictures["resolution"] == 1024
    parquet = pictures["parquet"]
    table = {
        row[parquet["filename_column"]]: row for row in pq.read_table(parquet["path"]).to_pylist()
    }
    root = Path(pictures["instance_data_dir"])
    found = [path for path in root.rglob("*") if path.suffix == ".png"]
    assert len(found) == len(table) == summary.samples
    for path in found:
        # Its rule: the path without instance_data_dir and the slash, with its extension.
        row = table[str(path).replace(str(root), "").lstrip("/")]
        assert row[parquet["caption_column"]] == f"{LONG}{path.stem}"
        size = (row[parquet["width_column"]], row[parquet["height_column"]])
        assert size == Image.open(path).size


# ---- the card ---------------------------------------------------------------------------------


def test_the_card_tells_where_the_samples_come_from(dataset, tmp_path):
    summary = run(dataset, tmp_path / "out", captions=BLENDED, format="parquet", title="My pairs")
    text = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "other"
    assert front["license_name"] == "fill-in"
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    assert "# My pairs" in text
    assert "| rows of the input | 0 | 42 |" in text
    assert "| not stored: http_404 | 2 | 40 |" in text
    assert "| `quality < 24` |" in text
    assert "org/captioner@abc (http, prompt p)" in text
    assert f"| `quality` | {summary.samples} |" in text
    assert f"{summary.samples} pictures with one caption each" in text


# ---- interruption and mistakes ----------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from curate.store.dataset import Dataset
from curate.export import layouts
from curate.export.run import export
from curate.export.settings import ExportSettings

read = layouts.PictureReader.read
calls = 0
def dying(self, *arguments):
    global calls
    calls += 1
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, *arguments)
layouts.PictureReader.read = dying
settings = ExportSettings(selection="good", samples_per_shard=10, captions={{"descriptive": 1}},
                          format="{format}", layout="{layout}")
export(Dataset("{dataset}"), Path("{out}"), settings)
"""


@pytest.mark.parametrize(
    ("format", "layout"),
    [("webdataset", "huggingface"), ("parquet", "huggingface"), ("folder", "kohya")],
)
def test_a_killed_export_continues_and_equals_an_unbroken_one(dataset, tmp_path, format, layout):
    options = {"captions": "descriptive", "format": format, "layout": layout}
    out = tmp_path / "out"
    code = KILLED.format(at=17, format=format, layout=layout, dataset=dataset.directory, out=out)
    died = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False)
    assert died.returncode == -signal.SIGKILL
    assert not (out / "export" / "summary.json").exists()
    assert not (out / "README.md").exists()
    resumed = run(dataset, out, **options)
    broken = files_of(out)
    assert run(dataset, out, **options) == resumed
    os.rename(out, tmp_path / "first")
    run(dataset, out, **options)
    assert files_of(out) == broken


def test_an_export_of_other_settings_is_not_touched(dataset, tmp_path):
    run(dataset, tmp_path / "out", captions="alt")
    before = files_of(tmp_path / "out")
    with pytest.raises(DatasetError, match="export of other settings"):
        run(dataset, tmp_path / "out", captions="descriptive")
    assert files_of(tmp_path / "out") == before


def test_a_layout_of_ones_own_is_written(dataset, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    layout = "export_layout_of_your_own:Listed"
    summary = run(dataset, tmp_path / "out", captions="alt", layout=layout)
    texts = [path.read_text() for path in (tmp_path / "out" / "lists").glob("*.jsonl")]
    assert sum(len(text.splitlines()) for text in texts) == summary.samples > 0
    found = {p.stem: p.read_bytes() for p in (tmp_path / "out" / "pictures").glob("*/*")}
    assert found.items() <= originals(dataset).items()
    assert len(found) == summary.samples


class WritesNothing(Layout):
    pattern = "*.txt"

    def shard_path(self, number):
        return self.out / f"{number}.txt"

    def write(self, number, rows, reader):
        return


def test_a_layout_of_ones_own_that_writes_nothing_exports_nothing(dataset, tmp_path):
    with pytest.raises(ConfigError, match=r"WritesNothing' did not write .*0\.txt"):
        run(dataset, tmp_path / "out", captions="alt", layout=f"{__name__}:WritesNothing")
    assert not (tmp_path / "out" / "export" / "summary.json").exists()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"captions": {"poem": 1.0}}, ConfigError, "no poem captions"),
        ({"captions": "alt=0.5,descriptive=0.2"}, ConfigError, "sum to 0.7 and must sum to 1"),
        ({"captions": "alt,descriptive"}, ConfigError, "neither one caption kind nor shares"),
        ({"layout": "kohja"}, ConfigError, "no export_layouts named 'kohja'"),
        ({"layout": "pathlib:Path"}, ConfigError, "is no class that derives from"),
        ({"layout": "curate.export.layouts:Layout"}, ConfigError, "not define shard_path, write"),
        ({"layout": "kohya"}, ConfigError, "layout kohya needs format folder"),
        ({"selection": "none"}, DatasetError, "no selection 'none'"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(dataset, tmp_path, options, error, says):
    def attempt() -> None:
        settings = load_settings(ExportSettings, None, {"selection": "good", **options})
        export(dataset, tmp_path / "out", settings)

    with pytest.raises(error, match=says) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
