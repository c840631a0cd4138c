"""Pictures processed one by one, and kept."""

import torch
from PIL import Image

from recaption.engines.transformers.picture_features import Picture, PictureCache, side_by_side
from recaption.engines.transformers.roomy_cache import RoomyLayer


def processed(value: float) -> Picture:
    return Picture(Image.new("RGB", (8, 6)), {"pixel_values": torch.full((1, 100), value)})


def test_a_processed_picture_is_found_again_with_its_size_and_features() -> None:
    cache = PictureCache(10_000)
    cache.put(b"one", processed(1.0))
    found = cache.get(b"one")
    assert found is not None
    assert found.size == (8, 6)
    assert torch.equal(found.features["pixel_values"], torch.full((1, 100), 1.0))
    assert cache.get(b"two") is None
    assert found.image.getbands() == ("R", "G", "B")


def test_the_cache_never_holds_more_bytes_than_it_may() -> None:
    cache = PictureCache(1000)  # two pictures of 400 bytes
    for number in range(20):
        cache.put(str(number).encode(), processed(number))
        kept = [n for n in range(20) if cache.get(str(n).encode()) is not None]
        assert number in kept
        assert len(kept) <= 2
    tiny = PictureCache(100)
    tiny.put(b"one", processed(1.0))
    assert tiny.get(b"one") is None


def test_features_side_by_side_are_filled_up_with_zeros() -> None:
    one = {"pixel_values": torch.ones(1, 2, 3), "rows": [[1]]}
    other = {"pixel_values": torch.ones(1, 3, 3), "rows": [[2]]}
    batch = side_by_side([one, other])
    assert batch["pixel_values"].shape == (2, 3, 3)
    assert batch["pixel_values"][0, 2].tolist() == [0.0, 0.0, 0.0]
    assert batch["rows"] == [[1], [2]]


def test_a_cache_layer_grows_past_its_room() -> None:
    states = torch.randn(2, 3, 100, 4)
    layer = RoomyLayer(states[:, :, :5].clone(), states[:, :, :5].clone(), 5)
    for position in range(5, 100):
        step = states[:, :, position : position + 1]
        keys, values = layer.update(step, step)
        assert layer.get_seq_length() == position + 1
    assert torch.equal(keys, states)
    assert torch.equal(values, states)
