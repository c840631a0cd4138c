"""Caches hold what the live path gives, survive kills, and are refused once they are wrong."""

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from curate.base.errors import ConfigError, DatasetError
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from tests.train.data.small_dataset import COLOURS, make_dataset, select
from tests.train.test_latents import autoencoder_kl
from tests.train.text import tiny_pipelines as tiny
from train.data import cache
from train.data.cache import precompute
from train.data.cached import CachedPictures, CachedText, find_cache
from train.data.index import build_index
from train.data.loader import open_data
from train.data.pictures import TarPictures, Tars
from train.latents import build_latents
from train.model_settings import ModelConfig, TextConfig
from train.protocols import TextFeatures
from train.settings import TrainSettings
from train.text import build_text

FILE_BYTES = 6000
SIZES = ((24, 24), (40, 24), (24, 40))


class HashedText(nn.Module):
    """A frozen encoder of one vector a word, without weights to download; padding is masked."""

    width, pooled_width, tokens, trainable = 8, 4, 6, False

    def __init__(self, masked: bool = True) -> None:
        super().__init__()
        self.masked = masked
        self.table = nn.Embedding(64, self.width).to(torch.bfloat16)
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(1))

    def tokenize(self, texts):
        ids = torch.zeros(len(texts), self.tokens, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = [1, *(sum(word.encode()) % 60 + 2 for word in text.split())][: self.tokens]
            ids[row, : len(words)] = torch.tensor(words)
        return {"ids": ids}

    def forward(self, tokens):
        ids = tokens["ids"]
        mask = (ids > 0) if self.masked else torch.ones_like(ids)
        sequence = self.table(ids)
        pooled = sequence.float().mean(1)[:, : self.pooled_width].to(sequence.dtype)
        return TextFeatures(sequence, mask.to(sequence.dtype), pooled)

    def identity(self):
        return {"words": 64, "masked": self.masked}


class Halved:
    """Latents of a quarter of the pixels: means of 2 x 2, scaled."""

    channels, factor = 3, 2

    def encode(self, pictures):
        return nn.functional.avg_pool2d(pictures, 2) * 1.5

    def to(self, device):
        return self

    def identity(self):
        return {"kind": "halved"}


class Parts:
    def __init__(self, text=None, latents=None):
        self.text, self.latents = text or HashedText(), latents


def settings_of(folder: Path, **given) -> TrainSettings:
    values = {"device": "cpu", "batch_size": 8, "validation_share": 0.2, "bucket_step": 4}
    values |= {"captions": {"descriptive": 0.7, "alt": 0.3}, "cache": folder}
    return TrainSettings(**values | given)


def config_of(kind: str = "pixels", precision: str = "fp32") -> ModelConfig:
    return ModelConfig(resolution=16, latents={"kind": kind, "precision": precision})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "set", 60, 2, SIZES)


def run(dataset: Dataset, folder: Path, config: ModelConfig, parts: Parts, **given):
    settings = settings_of(folder, **given)
    said: list[str] = []
    done = precompute(
        dataset, settings, config, parts, "all", say=said.append, file_bytes=FILE_BYTES
    )
    return done, said


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for kind in ("pictures", "latents", "text")
        for path in sorted(folder.glob(f"{kind}-*/**/*"))
        if path.is_file()
    }


def stored(folder: Path, kind: str, name: str) -> list[torch.Tensor]:
    """That tensor of all files of a cache."""
    return [load_file(path)[name] for path in sorted(folder.glob(f"{kind}-*/*.safetensors"))]


def test_cached_pictures_are_those_of_the_tars_mirrored_by_the_same_draws(dataset, tmp_path):
    given = {"aspect_buckets": True, "flip": True, "seed": 3}
    done, _ = run(dataset, tmp_path, config_of(), Parts(), **given)
    settings = settings_of(tmp_path, **given)
    data = open_data(dataset, settings, config_of(), Parts().text, "all")
    assert isinstance(data.pictures, CachedPictures)
    assert isinstance(data.held_out_pictures, CachedPictures)
    assert len(data.index.buckets) > 1
    live = TarPictures(Tars(dataset, tmp_path), data.index, 3, flip=True)
    turned = 0
    for bucket in data.index.buckets:
        rows = np.random.default_rng(0).permutation(np.arange(bucket.start, bucket.stop))
        for epoch in (0, 1):
            (x, ids), (x_live, ids_live) = (
                pictures.read(rows, np.full(len(rows), epoch)) for pictures in (data.pictures, live)
            )
            assert torch.equal(x, x_live)
            assert torch.equal(ids, ids_live)
            turned += int((x != x.flip(2)).any())
    assert turned
    pictures, _ = data.validation()
    live_apart = TarPictures(Tars(dataset, tmp_path), data.held_out)
    rows = np.arange(len(data.held_out))
    assert np.array_equal(pictures, live_apart.read(rows, rows)[0].numpy())
    assert done.parts[0].missing == len(data.index) + len(data.held_out)
    assert len(list(tmp_path.glob("pictures-*/training-*.safetensors"))) > 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cached_latents_are_those_of_the_encoder_in_its_precision(dataset, tmp_path, precision):
    config = config_of("autoencoder", precision)
    run(dataset, tmp_path, config, Parts(latents=Halved()))
    settings = settings_of(tmp_path)
    data = open_data(dataset, settings, config, Parts().text, "all", latents=Halved())
    rows = np.array([7, 0, 30, 12])
    x, ids = data.pictures.read(rows, np.zeros(4, np.int64))
    pictures, ids_live = TarPictures(Tars(dataset, tmp_path), data.index).read(rows, rows)
    expected = Halved().encode(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert torch.equal(x, expected.to(torch.float32 if precision == "fp32" else torch.bfloat16))
    assert torch.equal(ids, ids_live)
    # What is held out is looked at as pictures, so no latents of it are paid for.
    assert not list(tmp_path.glob("latents-*/held_out*"))
    with pytest.raises(ConfigError, match="mirrored"):
        run(dataset, tmp_path, config, Parts(latents=Halved()), flip=True)
    with pytest.raises(ConfigError, match="mirrored"):
        open_data(
            dataset, settings_of(tmp_path, flip=True), config, Parts().text, "all", latents=Halved()
        )


@pytest.mark.parametrize("masked", [True, False])
def test_cached_features_are_those_of_the_encoder_for_every_caption(dataset, tmp_path, masked):
    parts = Parts(HashedText(masked))
    done, _ = run(dataset, tmp_path, config_of(), parts)
    data = open_data(dataset, settings_of(tmp_path), config_of(), parts.text, "all")
    assert isinstance(data.text, CachedText)
    texts = sorted({"", *data.index.texts(), *data.held_out.texts()})
    assert done.parts[1].missing == len(texts) > len(COLOURS) * 3
    features = data.text.features([*texts, texts[1], ""])
    live = parts.text(parts.text.tokenize([*texts, texts[1], ""]))
    assert features.sequence.dtype == torch.bfloat16
    assert torch.equal(features.mask, live.mask)
    seen = live.mask[..., None]
    assert torch.equal(features.sequence * seen, live.sequence * seen)
    assert torch.equal(features.pooled, live.pooled)
    sizes = sum(tensor.nbytes for tensor in stored(tmp_path, "text", "sequence"))
    whole = len(texts) * HashedText.tokens * HashedText.width * 2
    assert (sizes < whole) == masked
    batch = next(data.batches(0, 1))[0]
    assert isinstance(batch.text, TextFeatures)
    assert torch.equal(batch.text.sequence, data.text.features(batch.drawn.texts).sequence)
    with pytest.raises(DatasetError, match="no features of the caption 'never seen'"):
        data.text.features(["never seen"])


def test_a_second_precompute_does_nothing_and_arms_share_what_is_there(dataset, tmp_path):
    run(dataset, tmp_path, config_of(), Parts())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}
    done, said = run(dataset, tmp_path, config_of(), Parts(), seed=9, captions={"short": 1.0})
    assert [part.missing for part in done.parts] == [0, 0]
    assert not said
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.safetensors")}


def test_new_captions_are_added_in_further_files_and_until_then_refused(tmp_path):
    dataset = make_dataset(tmp_path / "set", 30, 1)
    folder = tmp_path / "cache"
    select(dataset, "all", [f"k{n:06d}" for n in range(20)])
    run(dataset, folder, config_of(), Parts(), validation_samples=0)
    text = files_of(folder)
    select(dataset, "all", [f"k{n:06d}" for n in range(30)])
    settings = settings_of(folder, validation_samples=0)
    with pytest.raises(DatasetError, match="does not hold all captions"):
        open_data(dataset, settings, config_of(), Parts().text, "all")
    # Of a blend whose captions are all there nothing is missing.
    own = settings_of(folder, validation_samples=0, captions={"descriptive": 1.0})
    assert isinstance(open_data(dataset, own, config_of(), Parts().text, "all").text, CachedText)
    done, _ = run(dataset, folder, config_of(), Parts(), validation_samples=0)
    assert done.parts[1].missing == 10  # alt texts of their own
    after = files_of(folder)
    kept = [name for name in text if name.endswith(".safetensors")]
    assert all(after[name] == text[name] for name in kept)
    data = open_data(dataset, settings, config_of(), Parts().text, "all")
    texts = [f"IMG_{n}.jpg" for n in range(30)]
    live = Parts().text(Parts().text.tokenize(texts))
    assert torch.equal(data.text.features(texts).pooled, live.pooled)


def test_captions_of_another_kind_leave_the_pictures_as_they_are(tmp_path):
    dataset = make_dataset(tmp_path / "set", 30, 1)
    run(dataset, tmp_path, config_of(), Parts())
    rows = dataset.read_table("captions", "00000", "alt").to_pydict()
    rows |= {"kind": ["tags"] * 30, "text": [f"tag {n}" for n in range(30)]}
    dataset.write_table("captions", pa.table(rows, schema=CAPTIONS), "00000", "tagger")
    done, _ = run(dataset, tmp_path, config_of(), Parts())
    assert [part.missing for part in done.parts] == [0, 30]
    assert len(list(tmp_path.glob("index-*"))) == 2
    assert len(list(tmp_path.glob("pictures-*"))) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from curate.store.dataset import Dataset
from tests.train.data import test_precompute as t
from train.data.cache_files import CacheFiles
left = [int(sys.argv[3])]
write = CacheFiles.write
def counted(self, name, tensors, **told):
    write(self, name, tensors, **told)
    self.save()
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
CacheFiles.write = counted
t.run(Dataset(sys.argv[1]), Path(sys.argv[2]), t.config_of(), t.Parts())
"""


def test_killed_anywhere_it_goes_on_to_the_bytes_of_an_unbroken_run(dataset, tmp_path):
    run(dataset, tmp_path / "whole", config_of(), Parts())
    for after in (3, 6):
        command = [sys.executable, "-c", KILLED, dataset.directory, tmp_path / "cut", str(after)]
        ended = subprocess.run(command, env=os.environ, check=False).returncode
        assert ended == -signal.SIGKILL
        if after == 3:
            with pytest.raises(DatasetError, match="not finished"):
                open_data(dataset, settings_of(tmp_path / "cut"), config_of(), Parts().text, "all")
    run(dataset, tmp_path / "cut", config_of(), Parts())
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_cut_cache_is_refused_by_name_and_made_again(dataset, tmp_path):
    run(dataset, tmp_path, config_of(), Parts())
    whole = files_of(tmp_path)
    (path,) = tmp_path.glob("pictures-*/training-00001.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"training-00001\.safetensors was cut or lost"):
        open_data(dataset, settings_of(tmp_path), config_of(), Parts().text, "all")
    settings = settings_of(tmp_path)
    planned = precompute(dataset, settings, config_of(), Parts(), "all", dry_run=True)
    assert [part.missing for part in planned.parts] == [7, 0]
    _, said = run(dataset, tmp_path, config_of(), Parts())
    assert len(said) == 1
    assert "training-00001.safetensors is not what was written" in said[0]
    assert files_of(tmp_path) == whole


def test_an_altered_byte_is_found_by_precompute_again(dataset, tmp_path):
    run(dataset, tmp_path, config_of(), Parts())
    paths = [next(tmp_path.glob(f"{kind}-*/*00000.safetensors")) for kind in ("pictures", "text")]
    for path in paths:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
    done, said = run(dataset, tmp_path, config_of(), Parts())
    assert len(said) == 2
    assert all(part.missing for part in done.parts)
    data = open_data(dataset, settings_of(tmp_path), config_of(), Parts().text, "all")
    texts = sorted(set(data.index.texts()))
    live = Parts().text(Parts().text.tokenize(texts))
    assert torch.equal(data.text.features(texts).pooled, live.pooled)


def test_a_cache_under_a_wrong_name_or_of_other_rows_is_refused(dataset, tmp_path):
    run(dataset, tmp_path, config_of(), Parts())
    (folder,) = tmp_path.glob("pictures-*")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["identity"]["crop"] = "random"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="than its name says"):
        open_data(dataset, settings_of(tmp_path), config_of(), Parts().text, "all")
    manifest["identity"]["crop"] = "center"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    path = folder / "training-00000.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"numbers": tensors["numbers"].flip(0)}, path)
    data = open_data(dataset, settings_of(tmp_path), config_of(), Parts().text, "all")
    with pytest.raises(DatasetError, match="another sample in the place of k0"):
        data.pictures.read(np.array([0, 1]), np.zeros(2, np.int64))


def test_a_broken_picture_is_counted_and_the_run_refused_by_its_key(tmp_path):
    dataset = make_dataset(tmp_path / "set", 30, 1)
    tar = dataset.shard_path("00000")
    content = tar.read_bytes()
    index, _ = build_index(dataset, settings_of(tmp_path), config_of(), "all")
    key = index.keys(np.array([5]))[0]
    at = content.index(f"{key}.png".encode()) + 512
    tar.write_bytes(content[: at + 40] + bytes(60) + content[at + 100 :])
    done, _ = run(dataset, tmp_path, config_of(), Parts())
    assert "1 picture does not decode" in done.text()
    with pytest.raises(DatasetError, match=rf"did not decode, such as that of sample {key}"):
        open_data(dataset, settings_of(tmp_path), config_of(), Parts().text, "all")
    tar.write_bytes(content)  # repaired
    run(dataset, tmp_path, config_of(), Parts())
    data = open_data(dataset, settings_of(tmp_path), config_of(), Parts().text, "all")
    live = TarPictures(Tars(dataset, tmp_path), data.index)
    rows = np.arange(12)
    assert torch.equal(data.pictures.read(rows, rows)[0], live.read(rows, rows)[0])
    tar.rename(tar.with_suffix(".gone"))
    with pytest.raises(DatasetError, match="missing"):
        run(dataset, tmp_path / "other", config_of(), Parts())


def test_a_dry_run_tells_bytes_and_writes_no_cache_and_a_full_disk_is_refused(
    dataset, tmp_path, monkeypatch
):
    given = dict(say=print, file_bytes=FILE_BYTES)  # noqa: C408
    settings = settings_of(tmp_path)
    told = precompute(dataset, settings, config_of(), Parts(), "all", dry_run=True, **given)
    assert not files_of(tmp_path)
    run(dataset, tmp_path, config_of(), Parts())
    for part, kind in zip(told.parts, ("pictures", "text"), strict=True):
        tensors = [t for path in tmp_path.glob(f"{kind}-*/*.s*") for t in load_file(path).items()]
        held = sum(tensor.nbytes for name, tensor in tensors if name != "numbers")
        assert part.needs == pytest.approx(held, rel=0.25 if kind == "text" else 0)
    again = precompute(dataset, settings, config_of(), Parts(), "all", dry_run=True, **given)
    assert [part.needs for part in again.parts] == [0, 0]
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda place: full)
    with pytest.raises(ConfigError, match="GB free"):
        precompute(dataset, settings_of(tmp_path / "b"), config_of(), Parts(), "all", **given)


def test_what_cannot_be_kept_is_said(dataset, tmp_path):
    with pytest.raises(ConfigError, match="crop = random"):
        run(dataset, tmp_path, config_of(), Parts(), crop="random")
    done, _ = run(dataset, tmp_path, config_of(), Parts(), tag_shuffle=True)
    assert "tag_shuffle makes new texts" in done.text()
    assert [part.kind for part in done.parts] == ["pictures"]
    settings = settings_of(tmp_path, tag_shuffle=True)
    assert open_data(dataset, settings, config_of(), Parts().text, "all").text.tokens == 6


def test_adapters_leave_the_text_encoder_frozen_so_its_features_are_kept(dataset, tmp_path):
    parts = Parts()
    parts.text.trainable = True
    done, _ = run(dataset, tmp_path / "all", config_of(), parts)
    assert "trained along" in done.text()
    done, _ = run(dataset, tmp_path / "lora", config_of(), parts, lora_rank=4, init_from="run")
    assert "trained along" not in done.text()
    assert list((tmp_path / "lora").glob("text-*/*.safetensors"))
    assert not list((tmp_path / "all").glob("text-*"))


def test_a_cache_travels_to_another_process(dataset, tmp_path):
    run(dataset, tmp_path, config_of(), Parts())
    index, held_out = build_index(dataset, settings_of(tmp_path), config_of(), "all")
    found = find_cache(tmp_path, index, held_out, settings_of(tmp_path), text=Parts().text)
    copy = pickle.loads(pickle.dumps(found))
    rows = np.arange(9)
    assert torch.equal(copy.pictures.read(rows, rows)[0], found.pictures.read(rows, rows)[0])
    assert torch.equal(copy.text.features(["red"]).sequence, found.text.features(["red"]).sequence)


# ---- published parts ----------------------------------------------------------------------------


def published(
    folder: Path, *text: TextConfig, precision: str = "fp32"
) -> tuple[ModelConfig, Parts]:
    """A pipeline's folder with tiny CLIP, T5 and autoencoder, and the parts read from it."""
    from diffusers import FluxPipeline

    clip, t5 = tiny.clip_tokenizer(), tiny.t5_tokenizer()
    FluxPipeline(
        scheduler=None,
        vae=autoencoder_kl(shift_factor=0.1, scaling_factor=0.4),
        text_encoder=tiny.clip_model(clip, 16),
        tokenizer=clip,
        text_encoder_2=tiny.t5_model(t5, 24),
        tokenizer_2=t5,
        transformer=None,
    ).save_pretrained(folder)
    config = ModelConfig(
        source=str(folder),
        resolution=16,
        text=text,
        latents={"kind": "autoencoder"},
    )
    return config, Parts(build_text(config), build_latents(config))


FLUX = (
    TextConfig(kind="clip", sequence=False, pooled=True),
    TextConfig(kind="t5", name="text_encoder_2", tokens=20),
)
PIXART = (TextConfig(kind="t5", name="text_encoder_2", tokens=40, masked=True),)
LONG = (TextConfig(kind="clip", windows=2, pooled=True),)


@pytest.mark.parametrize("text", [FLUX, PIXART, LONG], ids=["joined", "masked", "windows"])
def test_published_models_are_cached_as_they_compute(dataset, tmp_path, text):
    config, parts = published(tmp_path / "pipeline", *text)
    run(dataset, tmp_path, config, parts)
    data = open_data(
        dataset, settings_of(tmp_path), config, parts.text, "all", latents=parts.latents
    )
    live_pictures = TarPictures(Tars(dataset, tmp_path), data.index)
    for batch in data.batches(0, 3):
        (own,) = batch
        with torch.no_grad():
            asked = parts.text(parts.text.tokenize(own.drawn.texts))
        x = live_pictures.read(own.rows, own.rows)[0].permute(0, 3, 1, 2).float() / 127.5 - 1
        torch.testing.assert_close(own.x, parts.latents.encode(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(own.text.mask, asked.mask)
        seen = asked.mask[..., None]
        torch.testing.assert_close(own.text.sequence * seen, asked.sequence * seen)
        assert (own.text.pooled is None) == (asked.pooled is None)
        if asked.pooled is not None:
            torch.testing.assert_close(own.text.pooled, asked.pooled)


def test_a_model_of_other_weights_has_a_cache_of_its_own(dataset, tmp_path):
    config, parts = published(tmp_path / "pipeline", *PIXART)
    run(dataset, tmp_path, config, parts)
    with torch.no_grad():
        tiny_t5 = tiny.t5_model(tiny.t5_tokenizer(), 24, seed=1)
    tiny_t5.save_pretrained(tmp_path / "pipeline" / "text_encoder_2")
    other = Parts(build_text(config), build_latents(config))
    data = open_data(
        dataset, settings_of(tmp_path), config, other.text, "all", latents=other.latents
    )
    assert isinstance(data.pictures, CachedPictures)
    assert data.text is other.text
    run(dataset, tmp_path, config, other)
    assert len(list(tmp_path.glob("text-*"))) == 2
    assert len(list(tmp_path.glob("latents-*"))) == 1
