import numpy as np
import pytest

from pipelines.world.scene import (
    Scene,
    SceneObject,
    WorldConfig,
    sample_scenes,
    scene_arrays,
    scenes_from_arrays,
)

WORLDS = [WorldConfig.small(), WorldConfig.rich()]


@pytest.mark.parametrize("config", WORLDS, ids=["small", "rich"])
def test_a_scene_survives_json_and_arrays(config: WorldConfig) -> None:
    scenes = sample_scenes(config, 300, seed=1)
    assert [Scene.from_json(scene.to_json()) for scene in scenes] == scenes
    assert scenes_from_arrays(scene_arrays(scenes, config), config) == scenes


def test_a_longer_sample_starts_with_the_shorter_one() -> None:
    config = WorldConfig.small()
    assert sample_scenes(config, 500, seed=3)[:20] == sample_scenes(config, 20, seed=3)
    assert sample_scenes(config, 20, seed=3) != sample_scenes(config, 20, seed=4)


def test_counts_follow_their_weights() -> None:
    config = WorldConfig.small()
    counts = [len(scene.objects) for scene in sample_scenes(config, 20_000, seed=0)]
    shares = np.bincount(counts)[1:] / len(counts)
    np.testing.assert_allclose(shares, config.count_weights, atol=0.015)


def test_held_out_pairs_are_never_seen_and_always_in_the_held_out_sample() -> None:
    config = WorldConfig.small()
    held_out = config.held_out

    def pairs(scene: Scene) -> set[tuple[str, str]]:
        return {(thing.shape, thing.colour) for thing in scene.objects}

    seen = sample_scenes(config, 3000, seed=0, combinations="seen")
    assert not any(pairs(scene) & held_out for scene in seen)
    secret = sample_scenes(config, 300, seed=0, combinations="held_out")
    assert all(pairs(scene) & held_out for scene in secret)


@pytest.mark.parametrize(("config", "pairs"), [(WORLDS[0], 6), (WORLDS[1], 10)])
def test_no_shape_and_no_colour_is_held_out_twice(config: WorldConfig, pairs: int) -> None:
    shapes, colours = zip(*config.held_out, strict=True)
    assert len(set(shapes)) == len(set(colours)) == pairs


def test_the_main_object_is_the_first_of_the_largest() -> None:
    small = SceneObject("ring", "red", "small", 0)
    large = [
        SceneObject("bar", colour, "large", cell) for cell, colour in ((1, "blue"), (3, "pink"))
    ]
    assert Scene((small, *large), "white", "plain").main == large[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"grid": 5},
        {"shapes": ("blob",)},
        {"count_weights": (0.5, 0.4)},
        {"count_weights": (0.2,) * 5},
        {"jitter": 3},
        {"held_out": frozenset({("circle", "red")})},
        {"colours": ("brown",), "backgrounds": ("black",)},
    ],
)
def test_a_world_that_cannot_be_drawn_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        WorldConfig(**wrong)  # type: ignore[arg-type]


def test_objects_share_no_cell() -> None:
    with pytest.raises(ValueError, match="distinct cells"):
        Scene((SceneObject("ring", "red", "small", 2),) * 2, "white", "plain")
