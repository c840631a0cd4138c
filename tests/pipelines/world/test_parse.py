from dataclasses import replace

import numpy as np
import pytest

from pipelines.world.parse import parse, parse_arrays, parsed_arrays, read
from pipelines.world.render import area_matrix, render
from pipelines.world.scene import Scene, WorldConfig, sample_arrays, sample_scenes

WORLDS = [WorldConfig.small(), WorldConfig.rich()]


@pytest.mark.parametrize("config", WORLDS, ids=["small", "rich"])
@pytest.mark.parametrize("resolution", [32, 50, 96])
def test_every_true_render_is_read_back_exactly(config: WorldConfig, resolution: int) -> None:
    scenes = sample_scenes(config, 400, seed=5)
    parsed = parse(render(scenes, config, resolution), config)
    assert [p.scene for p in parsed] == scenes
    assert not any(p.junk for p in parsed)


def test_noise_of_a_tenth_of_the_range_misleads_nobody() -> None:
    config = WorldConfig.small()
    scenes = sample_arrays(config, 400, seed=6)
    noise = np.random.default_rng(0).normal(0, 12.75, (400, 32, 32, 3))
    parsed = parse_arrays(np.clip(render(scenes, config, 32) + noise, 0, 255).astype("u1"), config)
    assert np.mean((parsed.shape >= 0) == (scenes.shape >= 0)) > 0.999
    for name in ("shape", "colour", "size"):
        assert np.mean(getattr(parsed, name) == getattr(scenes, name)) > 0.999


def test_what_is_no_object_is_junk_and_not_a_wrong_object() -> None:
    config = WorldConfig.small()
    image = render([Scene((), "white", "plain")], config, 32)
    image[0, 4:12, 20:26] = (90, 200, 90)
    image[0, 6:9, 22:30] = (10, 10, 200)
    (parsed,) = parse(image, config)
    assert parsed.scene.objects == ()
    assert parsed.junk == (1,)
    assert parsed_arrays([parsed], config).junk.tolist() == [[False, True, False, False]]


def test_a_faint_object_is_junk_to_the_strict_reading_and_itself_to_the_forced_one() -> None:
    config = WorldConfig.small()
    scenes = sample_arrays(config, 300, seed=8)
    bare = replace(scenes, shape=np.full_like(scenes.shape, -1))
    mixed = 0.58 * render(scenes, config, 32) + 0.42 * render(bare, config, 32)
    reading = read(np.rint(mixed).astype("u1"), config)
    there = scenes.shape >= 0
    assert np.mean(reading.strict.junk[there]) > 0.5
    assert not reading.forced.junk.any()
    assert np.mean(reading.forced.shape == scenes.shape) > 0.95


def test_an_off_shade_object_is_read_as_the_nearest_colour() -> None:
    config = WorldConfig.small()
    scenes = sample_scenes(config, 200, seed=7)
    dim = (render(scenes, config, 32).astype(float) * 0.94 + 6).astype(np.uint8)
    same = [p.scene == scene for p, scene in zip(parse(dim, config), scenes, strict=True)]
    assert np.mean(same) > 0.97


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 32, 30, 3), (1, 32, 32, 4)])
def test_other_image_layouts_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        parse(np.zeros(shape, np.uint8), WorldConfig.small())


def test_area_averaging_keeps_the_mean() -> None:
    matrix = area_matrix(100, 32)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(matrix.sum(0), 32 / 100, rtol=1e-5)


def test_no_picture_is_no_row() -> None:
    assert parse(np.zeros((0, 32, 32, 3), np.uint8), WorldConfig.small()) == []
