import hashlib
import json

import numpy as np
from PIL import Image

from curate.pictures.copy_descriptor import WEIGHTS, WIDTH, CopyDescriptor
from tests.curate.tiny import drawn


def canvases(pictures: list[np.ndarray]) -> np.ndarray:
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(p).resize((128, 128), box)) for p in pictures])


def test_the_shipped_weights_are_those_of_their_record() -> None:
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() == record["sha256"]


def test_an_edited_picture_is_nearest_to_its_original() -> None:
    pictures = [drawn(seed, 160, 128) for seed in range(60)]
    describe = CopyDescriptor()
    originals = describe(canvases(pictures))
    assert originals.shape == (60, WIDTH)
    assert np.allclose(np.linalg.norm(originals, axis=1), 1, atol=1e-5)
    for edit in (
        lambda p: p[:, ::-1],
        lambda p: p[12:, 15:],
        lambda p: np.clip(p * 1.25, 0, 255).astype(np.uint8),
        lambda p: np.asarray(Image.fromarray(p).rotate(3)),
    ):
        edited = describe(canvases([np.ascontiguousarray(edit(p)) for p in pictures]))
        assert np.array_equal((edited @ originals.T).argmax(axis=1), np.arange(60))


def test_a_picture_has_one_descriptor_whatever_stands_beside_it() -> None:
    describe = CopyDescriptor()
    together = describe(canvases([drawn(seed) for seed in range(70)]))
    alone = describe(canvases([drawn(67)]))
    assert np.array_equal(together[67], alone[0])
    assert len(describe(canvases([drawn(1)])[:0])) == 0
