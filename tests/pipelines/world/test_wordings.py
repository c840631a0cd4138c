import pytest

from pipelines.world.facts import ObjectFact, facts, score_captions
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.wordings import DESCRIPTIVE, SHORT, as_json, structured
from pipelines.world.writers import habitual_descriptive
from recaption.structured.prose import prose
from recaption.structured.schema import parse

WORLDS = [WorldConfig.small(), WorldConfig.rich()]


@pytest.mark.parametrize("config", WORLDS, ids=["small", "rich"])
@pytest.mark.parametrize("wording", DESCRIPTIVE)
def test_every_wording_states_all_facts_of_its_scene_and_no_other(
    wording: str, config: WorldConfig
) -> None:
    scenes = sample_scenes(config, 800, seed=1)
    captions = DESCRIPTIVE[wording](scenes, 2)
    wrong = score_captions(captions, scenes)["exact"] == 0
    assert not wrong.any(), [c for c, bad in zip(captions, wrong, strict=True) if bad][:3]


@pytest.mark.parametrize("wording", SHORT)
def test_every_short_wording_names_the_main_object_alone(wording: str) -> None:
    scenes = sample_scenes(WorldConfig.small(), 500, seed=3)
    for caption, scene in zip(SHORT[wording](scenes, 4), scenes, strict=True):
        assert facts(caption).objects == (ObjectFact(scene.main.shape, scene.main.colour),), caption


@pytest.mark.parametrize("form", [DESCRIPTIVE, SHORT], ids=["descriptive", "short"])
def test_a_longer_list_begins_with_the_shorter_one_and_another_seed_words_it_otherwise(
    form: dict,  # type: ignore[type-arg]
) -> None:
    scenes = sample_scenes(WorldConfig.small(), 60, seed=5)
    for wording, write in form.items():
        assert write(scenes[:20], 6) == write(scenes, 6)[:20]
        assert (write(scenes, 6) == write(scenes, 7)) == (wording == "captioner")


def test_the_wordings_of_a_scene_differ_in_order_and_words() -> None:
    scenes = sample_scenes(WorldConfig.small(), 400, seed=8)
    texts = {name: write(scenes, 9) for name, write in DESCRIPTIVE.items()}
    firsts = [text.split()[0].strip(":") for text in texts["place-first"]]
    assert {"top-left", "bottom-right", "background"} <= set(firsts)
    typed = " ".join(texts["typed"]).split()
    assert {"big", "tiny", "grey", "bg", "backdrop", "upper"} <= set(typed)
    assert not {"a", "an", "the"} & set(typed)
    assert all(text == text.lower() for text in texts["typed"])


def test_a_structured_caption_as_prose_is_the_captioners_wording() -> None:
    scenes = sample_scenes(WorldConfig.small(), 50, seed=10)
    for scene, text, habit in zip(
        scenes, as_json(scenes), habitual_descriptive(scenes), strict=True
    ):
        assert parse(text) == structured(scene)
        assert prose(structured(scene)) == habit
