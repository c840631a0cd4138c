"""Pictures from tars, as the plain way would read them, and batches by rank, worker and step."""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from curate.store.dataset import Dataset
from tests.train.data.small_dataset import make_dataset, picture
from train.data import pictures as pictures_module
from train.data.captions import CaptionDraws
from train.data.index import TrainingIndex, build_index
from train.data.loader import TrainingData
from train.data.order import DataOrder
from train.data.pictures import TarPictures, Tars, cut
from train.settings import TrainSettings, model_config

EPOCH = np.zeros(60, np.int64)


class Letters:
    """A tokenizer of letters."""

    def tokenize(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        ids = [[ord(letter) for letter in text.ljust(8)[:8]] for text in texts]
        return {"input_ids": torch.tensor(ids)}


def opened(dataset: Dataset, **changes) -> tuple[TrainSettings, TrainingIndex, TrainingIndex]:
    given = TrainSettings(**{"model": "tiny-test", "validation_samples": 0, **changes})
    return given, *build_index(dataset, given, model_config(given), "all")


def data(dataset: Dataset, **changes) -> TrainingData:
    given, index, held_out = opened(dataset, **changes)
    tars = Tars(dataset, dataset.directory / "training", given.shards_from)
    return TrainingData(
        index=index,
        held_out=held_out,
        order=DataOrder(index.buckets, given.batch_size, given.seed, given.shuffle_block),
        draws=CaptionDraws(index, given),
        pictures=TarPictures(tars, index, given.seed, given.crop, given.flip),
        held_out_pictures=TarPictures(tars, held_out),
        text=Letters(),
        workers=given.loader_workers,
    )


def plain(content: bytes, side: int) -> np.ndarray:
    """The centre square, decoded in full."""
    rgb = Image.open(io.BytesIO(content)).convert("RGB")
    least = min(rgb.size)
    left, top = (rgb.width - least) / 2, (rgb.height - least) / 2
    box = (left, top, left + least, top + least)
    return np.asarray(rgb.resize((side, side), Image.Resampling.BICUBIC, box=box))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_rows_are_the_centre_squares_of_their_pictures(tmp_path: Path) -> None:
    sizes = ((24, 24), (40, 24), (17, 31))
    dataset = make_dataset(tmp_path, 12, sizes=sizes)
    read = data(dataset).pictures
    rows = np.array([3, 10, 5, 1, 0])
    for _ in range(2):  # from the tar, and from memory
        x, ids = read.read(rows, EPOCH[:5])
        for row, pixels in zip(rows.tolist(), x.numpy(), strict=True):
            expected = plain(picture(row, sizes[row % 3]), 16)
            assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert ids[1].tolist() == [24, 40, 0, pytest.approx((40 * 16 / 24 - 16) / 2), 16, 16]


def test_a_set_in_memory_is_decoded_once_and_a_large_one_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(tmp_path, 12)
    rows = np.arange(12)
    kept, (_, index, _) = data(dataset).pictures, opened(dataset)
    monkeypatch.setattr(pictures_module, "_REMEMBERED_BYTES", 100)
    fresh = TarPictures(Tars(dataset, tmp_path / "training"), index)
    first = kept.read(rows, EPOCH[:12])[0]
    assert torch.equal(first, fresh.read(rows, EPOCH[:12])[0])
    for shard in dataset.shards():
        dataset.shard_path(shard).write_bytes(b"")
    assert torch.equal(kept.read(rows[::-1].copy(), EPOCH[:12])[0], first.flip(0))
    gone = TarPictures(Tars(dataset, tmp_path / "training"), index)
    with pytest.raises(DatasetError):
        gone.read(rows, EPOCH[:12])


@pytest.mark.parametrize("size", [(520, 390), (1000, 600)])
def test_a_reduced_decode_is_the_plain_one_but_for_noise(size: tuple[int, int]) -> None:
    content = picture(3, size, "jpg")
    side = 64
    scale = side / min(size)
    corner = ((size[1] * scale - side) / 2, (size[0] * scale - side) / 2)
    assert psnr(cut(content, (side, side), corner), plain(content, side)) > 50


def test_a_random_cut_says_where_it_was_taken(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, 30, sizes=((48, 24),))
    rows = np.arange(30)
    read = data(dataset, crop="random").pictures
    x, ids = read.read(rows, EPOCH[:30])
    again, _ = read.read(rows, EPOCH[:30])
    assert torch.equal(x, again)
    left = ids[:, 3].numpy()
    assert (ids[:, 2] == 0).all()
    assert left.min() >= 0
    assert left.max() <= 16
    assert len(set(left.tolist())) == 30
    # The pictures' red runs from left to right over 32 scaled pixels.
    np.testing.assert_allclose(x[:, 8, 8, 0].numpy(), (left + 8.5) / 32 * 255, atol=9)
    assert not torch.equal(read.read(rows, EPOCH[:30] + 1)[0], x)


def test_half_of_the_draws_are_mirrored_also_from_memory(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, 60)
    rows = np.arange(60)
    whole = data(dataset).pictures.read(rows, EPOCH)[0]
    read = data(dataset, flip=True).pictures
    for epoch in (0, 1, 2):
        x = read.read(rows, EPOCH + epoch)[0]
        same = (x == whole).flatten(1).all(1)
        mirrored = (x == whole.flip(2)).flatten(1).all(1)
        assert (same | mirrored).all()
        assert 15 < int(mirrored.sum()) < 45


def test_pictures_that_do_not_decode_or_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, 6, shards=1)
    rows, path = np.arange(6), dataset.shard_path("00000")
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        start = tar.getmember("k000002.png").offset_data
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"k000002 does not decode.*caplab check"):
        data(dataset).pictures.read(rows, EPOCH[:6])
    path.write_bytes(content[: start - 700])
    with pytest.raises(DatasetError, match="is not in the tar of shard 00000"):
        data(dataset).pictures.read(rows, EPOCH[:6])
    path.unlink()
    with pytest.raises(DatasetError, match=r"is missing; `caplab check .* --repair`"):
        data(dataset).pictures.read(rows, EPOCH[:6])


def test_a_tar_that_was_written_anew_is_indexed_anew(tmp_path: Path) -> None:
    first = make_dataset(tmp_path / "one", 20, shards=1)
    other = make_dataset(tmp_path / "two", 20, shards=1, sizes=((32, 32),))
    data(first).pictures.read(np.arange(20), EPOCH[:20])
    first.shard_path("00000").write_bytes(other.shard_path("00000").read_bytes())
    x, _ = data(first).pictures.read(np.array([7]), EPOCH[:1])
    assert np.abs(x[0].numpy().astype(int) - plain(picture(7, (32, 32)), 16)).max() <= 1


def test_tars_far_away_are_fetched_and_a_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures_module, "_FETCHED_TARS", 2)
    dataset = make_dataset(tmp_path / "data", 24, shards=6)
    near = data(dataset).pictures.read(np.arange(24), EPOCH[:24])[0]
    (tmp_path / "data" / "shards").rename(tmp_path / "elsewhere")
    far = data(dataset, shards_from=f"local://{tmp_path}/elsewhere").pictures
    assert torch.equal(far.read(np.arange(24), EPOCH[:24])[0], near)
    assert len(list((tmp_path / "data" / "training" / "tars").glob("*.tar"))) == 2
    local = data(dataset, shards_from=str(tmp_path / "elsewhere")).pictures
    assert torch.equal(local.read(np.arange(24), EPOCH[:24])[0], near)


def test_tars_on_an_object_store_give_what_those_of_the_dataset_give(
    bucket: Any, tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "data", 12, shards=3)
    near = data(dataset).pictures.read(np.arange(12), EPOCH[:12])[0]
    bucket.create_dir("training-tars")
    for path in (tmp_path / "data" / "shards").glob("*.tar"):
        with bucket.open_output_stream(f"training-tars/{path.name}") as out:
            out.write(path.read_bytes())
        path.unlink()
    far = data(dataset, shards_from="s3://data/training-tars").pictures
    assert torch.equal(far.read(np.arange(12), EPOCH[:12])[0], near)
    with pytest.raises(ConfigError, match="s3://data/none does not exist"):
        data(dataset, shards_from="s3://data/none")


def test_ranks_and_parts_are_the_batch_of_one_process(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, 50)
    read = data(dataset, batch_size=8)
    whole = [parts[0] for parts in read.batches(2, 5)]
    for world, parts in ((2, 1), (2, 2), (4, 2), (1, 8)):
        ranks = [list(read.batches(2, 5, rank, world, parts)) for rank in range(world)]
        for nth, batch in enumerate(whole):
            pieces = [piece for rank in ranks for piece in rank[nth]]
            assert {len(piece) for piece in pieces} == {8 // (world * parts)}
            assert {piece.step for piece in pieces} == {nth + 2}
            np.testing.assert_array_equal(np.concatenate([p.rows for p in pieces]), batch.rows)
            assert torch.equal(torch.cat([p.x for p in pieces]), batch.x)
            assert [text for p in pieces for text in p.drawn.texts] == list(batch.drawn.texts)
    with pytest.raises(ConfigError, match="batch_size = 8 cannot be shared by 3 processes"):
        next(read.batches(0, 1, 0, 3))


def test_workers_give_the_same_batches_in_order(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, 50)
    alone, helped = data(dataset, batch_size=8), data(dataset, batch_size=8, loader_workers=2)
    pairs = zip(alone.batches(3, 9), helped.batches(3, 9), strict=True)
    for number, ((ours,), (theirs,)) in enumerate(pairs):
        assert ours.step == theirs.step == number + 3
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.text["input_ids"], theirs.text["input_ids"])
        assert ours.drawn.texts == theirs.drawn.texts
        assert torch.equal(ours.conditions, theirs.conditions)
    dataset.shard_path("00001").unlink()
    with pytest.raises(DatasetError, match=r"^\S+00001.tar is missing; [^\n]*$"):
        list(data(dataset, batch_size=8, loader_workers=2).batches(0, 9))


def test_batches_of_buckets_have_one_shape_each(tmp_path: Path) -> None:
    sizes = ((64, 32), (32, 64), (48, 48))
    dataset = make_dataset(tmp_path, 60, sizes=sizes)
    read = data(dataset, batch_size=4, aspect_buckets=True, resolution=32, bucket_step=8)
    shapes = {tuple(batch.x.shape[1:3]) for (batch,) in read.batches(0, 15)}
    assert shapes == {(b.height, b.width) for b in read.index.buckets}
    order = [batch.x.shape[1:3] for (batch,) in read.batches(0, 15)]
    assert order != sorted(order)
    assert len(shapes) == 3


def test_held_out_pictures_come_with_the_first_caption_of_kinds_that_all_have(
    tmp_path: Path,
) -> None:
    dataset = make_dataset(tmp_path, 60)
    read = data(dataset, validation_samples=5, validation_share=0.3)
    pictures, captions = read.validation()
    assert pictures.shape == (5, 16, 16, 3)
    assert list(captions) == ["alt", "descriptive", "short"]
    assert all(text.startswith("a plain") for text in captions["descriptive"])
    numbers = [int(text[4:-4]) for text in captions["alt"]]
    for number, pixels in zip(numbers, pictures, strict=True):
        expected = plain(picture(number, (24, 24)), 16)
        assert np.abs(pixels.astype(int) - expected).max() <= 1
    nothing = replace(read, held_out=opened(dataset)[2])
    assert nothing.validation()[0].shape == (0, 16, 16, 3)
