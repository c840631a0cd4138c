"""Scenes of the synthetic world in every form and wording."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from pipelines.judges.prompts import PROMPTS
from pipelines.judges.world_prompts import distinct_texts, world_prompts
from pipelines.judges.world_settings import WorldPromptSettings
from pipelines.world.facts import contradicts, facts
from pipelines.world.scene import Scene, WorldConfig

SMALL = WorldConfig.small()


def asked(**options: object) -> pa.Table:
    return world_prompts(load_settings(WorldPromptSettings, None, options))


@pytest.fixture(scope="module")
def prompts() -> pa.Table:
    return asked(scenes=80)


def test_every_scene_is_asked_for_in_every_form_and_wording(prompts: pa.Table) -> None:
    assert prompts.schema.equals(PROMPTS)
    intents = {pair: set() for pair in distinct_texts(prompts)}
    for row in prompts.to_pylist():
        intents[row["form"], row["wording"]].add(row["intent_id"])
    assert set(intents) == {
        *(("descriptive", w) for w in ("captioner", "varied", "place-first", "typed")),
        *(("short", w) for w in ("captioner", "varied", "typed")),
        ("upsampled", "captioner"),
        ("alt", "own"),
    }
    scenes = [of for (form, _), of in intents.items() if form == "descriptive"]
    mains = [of for (form, _), of in intents.items() if form in ("short", "upsampled")]
    assert all(of == scenes[0] for of in scenes)
    assert len(scenes[0]) == 80
    assert all(of == mains[0] for of in mains)
    assert len(mains[0]) <= 48
    assert intents["alt", "own"] <= scenes[0]


def test_texts_and_ids_are_distinct(prompts: pa.Table) -> None:
    rows = prompts.to_pylist()
    said = Counter((row["form"], row["wording"], row["prompt"]) for row in rows)
    assert max(said.values()) == 1
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    assert distinct_texts(prompts)["descriptive", "typed"] == 80
    assert distinct_texts(prompts)["alt", "own"] < 80  # pages name the same things alike


def test_a_prompt_says_nothing_false_of_its_intent_and_its_questions_name_what_it_asks(
    prompts: pa.Table,
) -> None:
    for row in prompts.to_pylist():
        scene = Scene.from_json(row["intent"])
        assert not contradicts(facts(row["prompt"]), scene), row
        assert row["category"].startswith(f"{len(scene.objects)} object")
        objects = len(row["questions"]) - 1 if row["form"] == "descriptive" else 1
        assert objects == (len(scene.objects) if row["form"] == "descriptive" else 1)
        assert all(question.startswith("Is the") for question in row["questions"])


def test_a_share_of_the_scenes_asks_for_pairs_of_no_training_picture(prompts: pa.Table) -> None:
    for row in prompts.to_pylist():
        scene = Scene.from_json(row["intent"])
        things = scene.objects if row["form"] == "descriptive" else (scene.main,)
        assert row["held_out"] == bool({(o.shape, o.colour) for o in things} & SMALL.held_out)
    held = prompts.filter(prompts["held_out"])
    assert distinct_texts(held)["descriptive", "varied"] == 20
    assert not any(asked(scenes=20, held_out_share=0)["held_out"].to_pylist())


def test_more_scenes_add_prompts_and_change_none(prompts: pa.Table) -> None:
    forms = ["descriptive", "short", "upsampled"]
    more = asked(scenes=100, forms=forms)
    kept = prompts.filter(pa.compute.is_in(prompts["form"], pa.array(forms)))
    assert set(kept["prompt_id"].to_pylist()) <= set(more["prompt_id"].to_pylist())


def test_scenes_that_were_trained_on_are_not_asked_for(tmp_path) -> None:  # type: ignore[no-untyped-def]
    first = asked(scenes=20, forms=["descriptive"], wordings=["captioner"])
    path = tmp_path / "truth.parquet"
    pq.write_table(pa.table({"scene": first["intent"].slice(0, 18)}), path)
    again = asked(scenes=20, forms=["descriptive"], exclude_scenes=str(path))
    assert not set(first["intent"].to_pylist()[:18]) & set(again["intent"].to_pylist())
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(ConfigError, match="column named 'scene'"):
        asked(exclude_scenes=str(path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"forms": ["short"], "wordings": ["place-first"]}, "those of short prompts are captioner"),
        ({"forms": ["short", "short"]}, "only once"),
        ({"world": "rich", "scene": 3}, "did you mean 'scenes'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(given: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ConfigError, match=message):
        asked(**given)


def test_the_rich_world_is_asked_for_in_its_own_names() -> None:
    rich = asked(world="rich", scenes=12)
    assert any("center" in text for text in rich["prompt"].to_pylist())
    assert {Scene.from_json(intent).grid for intent in rich["intent"].to_pylist()} == {3}
    assert np.any(rich["held_out"].to_pylist())
