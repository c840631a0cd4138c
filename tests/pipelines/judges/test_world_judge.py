"""The synthetic world's judge: its scores, and the bounds that they lie between."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curate.base.errors import ConfigError
from pipelines.judges.prompts import PROMPTS
from pipelines.judges.world import WorldJudge
from pipelines.judges.world_bounds import BOUNDS, hedges, softened
from pipelines.judges.world_prompts import world_prompts
from pipelines.judges.world_settings import WorldJudgeSettings, WorldPromptSettings
from pipelines.world.scene import WorldConfig

PROMPTS_ASKED = world_prompts(WorldPromptSettings(scenes=60, wordings=("captioner",)))
JUDGE = WorldJudge(WorldJudgeSettings())


def of_form(form: str) -> pa.Table:
    return PROMPTS_ASKED.filter(pc.equal(PROMPTS_ASKED["form"], form))


def test_the_form_decides_whether_the_scene_or_its_main_object_is_asked_for() -> None:
    columns = JUDGE.score(JUDGE.targets(PROMPTS_ASKED, 32), PROMPTS_ASKED)
    assert tuple(columns) == JUDGE.metrics
    assert all(len(column) == PROMPTS_ASKED.num_rows for column in columns.values())
    whole = np.array(PROMPTS_ASKED["form"]) == "descriptive"
    assert (~np.isnan(columns["count"]) == whole).all()
    for form, column in (("descriptive", "all_correct"), ("alt", "object_hit")):
        assert JUDGE.score(JUDGE.targets(of_form(form), 48), of_form(form))[column].mean() == 1
    held_out = ~np.isnan(columns["object_hit_held_out"])
    assert (held_out == np.array(PROMPTS_ASKED["held_out"])).all()


def test_a_score_lies_between_what_luck_gives_and_what_true_pictures_give() -> None:
    table = JUDGE.bounds(PROMPTS_ASKED, 32)
    assert table.schema.equals(BOUNDS)
    bounds = {(row["form"], row["metric"]): row for row in table.to_pylist()}
    for (_, metric), row in bounds.items():
        lowest = metric in ("malformed", "hallucinated")
        assert row["ceiling"] == (0 if lowest else 1), metric
        if not lowest:
            assert max(row["unrelated"], row["hedging"]) < 0.75, metric
            assert row["soft"] <= 1
    hit = bounds["descriptive", "object_hit"]
    assert hit["hedging"] < 0.04
    # Soft pictures are malformed to the thresholds, and right to a forced choice.
    assert bounds["descriptive", "malformed"]["soft"] > 0.1
    assert bounds["descriptive", "object_forced"]["soft"] > hit["soft"] + 0.1
    # A short prompt is met by its object among others, so many objects pay.
    short = bounds["short", "object_hit"]
    assert short["unrelated"] < short["hedging"] < 0.15
    assert bounds["short", "colour"]["hedging"] > 0.4
    assert bounds["short", "object_hit_held_out"]["hedging"] == 0
    assert ("short", "count") not in bounds


@pytest.mark.parametrize("config", [WorldConfig.small(), WorldConfig.rich()], ids=["small", "rich"])
def test_a_hedge_shows_as_many_shapes_and_colours_as_it_can(config: WorldConfig) -> None:
    full = hedges(config, 50, seed=1)
    for column in (full.shape, full.colour):
        assert all(len(set(row)) == config.cells for row in column.tolist())
    pairs = {
        (config.shapes[s], config.colours[c])
        for s, c in zip(full.shape.ravel(), full.colour.ravel(), strict=True)
    }
    assert not pairs & config.held_out


def test_softened_pictures_are_shifted_to_all_corners() -> None:
    picture = np.zeros((4, 32, 32, 3), np.uint8)
    picture[:, 12:20, 12:20] = 255
    soft = softened(picture, 2).astype(float)
    rows, columns = np.mgrid[:32, :32]
    weight = soft[..., 0] / soft[..., 0].sum((1, 2), keepdims=True)
    moved = [((w * rows).sum() - 15.5, (w * columns).sum() - 15.5) for w in weight]
    np.testing.assert_allclose(
        moved, [(0.5, 0.5), (0.5, -0.5), (-0.5, 0.5), (-0.5, -0.5)], atol=0.02
    )


def test_prompts_of_another_world_or_of_none_are_refused() -> None:
    rich = world_prompts(WorldPromptSettings(world="rich", scenes=4, forms=("descriptive",)))
    picture = np.zeros((rich.num_rows, 32, 32, 3), np.uint8)
    with pytest.raises(ConfigError, match="another world"):
        JUDGE.score(picture, rich)
    place = PROMPTS.get_field_index("intent")
    dog = PROMPTS_ASKED.slice(0, 1).set_column(place, "intent", [["a dog on a beach"]])
    with pytest.raises(ConfigError, match="take another judge"):
        JUDGE.score(picture[:1], dog)
