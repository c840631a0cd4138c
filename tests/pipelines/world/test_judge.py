import numpy as np
import pytest

from pipelines.world.judge import COLUMNS, Asked, judge
from pipelines.world.parse import ParsedScene, Reading, parsed_arrays, read
from pipelines.world.render import render
from pipelines.world.scene import Scene, SceneObject, WorldConfig, sample_scenes

CONFIG = WorldConfig.small()


def scene(*objects: tuple[str, str, str, int], style: str = "plain") -> Scene:
    things = [SceneObject(shape, colour, size, cell) for size, colour, shape, cell in objects]
    return Scene(tuple(things), "white", style)


def reading(seen: Scene, junk: tuple[int, ...] = ()) -> Reading:
    """A picture of which nothing is nearest to another object than the one that is read."""
    strict, forced = (parsed_arrays([ParsedScene(seen, kept)], CONFIG) for kept in (junk, ()))
    return Reading(strict, forced)


MEANT = scene(("large", "red", "ring", 0), ("small", "blue", "bar", 1))


def scores(seen: Scene, asked: Asked = "scene", junk: tuple[int, ...] = ()) -> dict[str, float]:
    columns = judge(reading(seen, junk), [MEANT], asked, CONFIG)
    assert tuple(columns) == COLUMNS
    return {name: float(column[0]) for name, column in columns.items()}


def test_true_renders_reach_the_ceiling_by_either_reading() -> None:
    scenes = sample_scenes(CONFIG, 500, seed=1)
    pictures = read(render(scenes, CONFIG, 32), CONFIG)
    for asked in ("scene", "main"):
        ceiling = judge(pictures, scenes, asked, CONFIG)
        for name in set(COLUMNS) - {"malformed", "hallucinated"}:
            given = ceiling[name][~np.isnan(ceiling[name])]
            assert (given == 1).all(), name
            assert len(given) or asked == "main", name
        assert ceiling["malformed"].max() == 0


def test_objects_of_held_out_pairs_are_counted_apart() -> None:
    secret = scene(
        ("large", "green", "ring", 0), ("small", "pink", "bar", 1), ("small", "red", "bar", 2)
    )
    half = scene(("large", "green", "ring", 0), ("small", "blue", "bar", 1))
    assert judge(reading(half), [secret], "scene", CONFIG)["object_hit_held_out"] == 0.5
    assert judge(reading(half), [secret], "main", CONFIG)["object_hit_held_out"] == 1
    assert np.isnan(judge(reading(half), [MEANT], "scene", CONFIG)["object_hit_held_out"])


def test_exchanged_colours_break_binding_but_not_position() -> None:
    got = scores(scene(("large", "blue", "ring", 0), ("small", "red", "bar", 1)))
    assert (got["colour"], got["shape"], got["position"], got["count"]) == (0, 1, 1, 1)
    assert (got["binding"], got["object_hit"], got["hallucinated"]) == (0, 0, 2)


def test_exchanged_places_keep_binding_and_break_the_relation() -> None:
    got = scores(scene(("small", "blue", "bar", 0), ("large", "red", "ring", 1)))
    assert (got["binding"], got["relation"], got["object_hit"]) == (1, 0, 0)


def test_a_moved_pair_keeps_its_relation() -> None:
    got = scores(scene(("large", "red", "ring", 2), ("small", "blue", "bar", 3)))
    assert (got["relation"], got["object_hit"], got["position"]) == (1, 0, 0)


def test_an_extra_object_costs_count_and_all_correct_and_is_counted_as_hallucinated() -> None:
    right = [("large", "red", "ring", 0), ("small", "blue", "bar", 1)]
    got = scores(scene(*right, ("small", "blue", "bar", 2)))
    assert (got["object_hit"], got["count"], got["all_correct"]) == (1, 0, 0)
    assert got["hallucinated"] == 1
    assert got["position"] == pytest.approx(2 / 3)


def test_a_wrong_size_or_background_costs_all_correct_only() -> None:
    size = scores(scene(("small", "red", "ring", 0), ("small", "blue", "bar", 1)))
    assert (size["object_hit"], size["size"], size["all_correct"]) == (1, 0.5, 0)
    ground = scores(
        scene(("large", "red", "ring", 0), ("small", "blue", "bar", 1), style="striped")
    )
    assert (ground["object_hit"], ground["background"], ground["all_correct"]) == (1, 0, 0)


def test_a_malformed_cell_is_reported_apart_from_alignment() -> None:
    got = scores(scene(("large", "red", "ring", 0)), junk=(1,))
    assert got["malformed"] == 0.5
    assert (got["object_hit"], got["object_hit_well_formed"]) == (0.5, 1)


def test_a_short_prompt_asks_for_its_main_object_anywhere() -> None:
    got = scores(scene(("small", "pink", "moon", 0), ("small", "red", "ring", 3)), "main")
    assert (got["object_hit"], got["all_correct"]) == (1, 1)
    assert np.isnan(got["count"])
    assert np.isnan(got["position"])
    other = scores(scene(("large", "red", "moon", 0), ("large", "pink", "ring", 1)), "main")
    assert (other["colour"], other["shape"], other["object_hit"]) == (1, 1, 0)


def test_a_relation_of_a_single_object_is_no_case() -> None:
    alone = scene(("large", "red", "ring", 0))
    columns = judge(reading(alone), [alone], "scene", CONFIG)
    assert np.isnan(columns["relation"][0])
