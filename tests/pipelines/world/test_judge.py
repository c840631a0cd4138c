import numpy as np
import pytest

from pipelines.world.judge import COLUMNS, judge
from pipelines.world.parse import ParsedScene, parse
from pipelines.world.render import render
from pipelines.world.scene import Scene, SceneObject, WorldConfig, sample_scenes

CONFIG = WorldConfig.small()


def scene(*objects: tuple[str, str, str, int], style: str = "plain") -> Scene:
    things = [SceneObject(shape, colour, size, cell) for size, colour, shape, cell in objects]
    return Scene(tuple(things), "white", style)


MEANT = scene(("large", "red", "ring", 0), ("small", "blue", "bar", 1))


def scores(seen: Scene, form: str = "descriptive", junk: tuple[int, ...] = ()) -> dict[str, float]:
    columns = judge([ParsedScene(seen, junk)], [MEANT], form, CONFIG)  # type: ignore[arg-type]
    assert tuple(columns) == COLUMNS
    return {name: float(column[0]) for name, column in columns.items()}


def test_real_renders_reach_the_ceiling_and_shuffled_pairs_the_floor() -> None:
    scenes = sample_scenes(CONFIG, 500, seed=1)
    parsed = parse(render(scenes, CONFIG, 32), CONFIG)
    ceiling = judge(parsed, scenes, "descriptive", CONFIG)
    for name in set(COLUMNS) - {"malformed", "hallucinated"}:
        assert np.nanmin(ceiling[name]) == 1, name
    floor = judge(parsed[1:] + parsed[:1], scenes, "descriptive", CONFIG)
    assert np.mean(floor["object_hit"]) < 0.04
    assert np.mean(floor["all_correct"]) < 0.01
    short = judge(parsed[1:] + parsed[:1], scenes, "short", CONFIG)
    assert np.mean(short["object_hit"]) < 0.1


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


@pytest.mark.parametrize("form", ["short", "upsampled"])
def test_a_short_prompt_asks_for_its_main_object_anywhere(form: str) -> None:
    got = scores(scene(("small", "pink", "moon", 0), ("small", "red", "ring", 3)), form)
    assert (got["object_hit"], got["all_correct"]) == (1, 1)
    assert np.isnan(got["count"])
    assert np.isnan(got["position"])
    other = scores(scene(("large", "red", "moon", 0), ("large", "pink", "ring", 1)), form)
    assert (other["colour"], other["shape"], other["object_hit"]) == (1, 1, 0)


def test_a_relation_of_a_single_object_is_no_case() -> None:
    alone = scene(("large", "red", "ring", 0))
    columns = judge([ParsedScene(alone, ())], [alone], "descriptive", CONFIG)
    assert np.isnan(columns["relation"][0])
