from collections import Counter

import pytest

from pipelines.world.facts import (
    Facts,
    ObjectFact,
    contradicts,
    facts,
    pooled,
    scene_facts,
    score_captions,
)
from pipelines.world.scene import Scene, SceneObject, WorldConfig, sample_scenes
from pipelines.world.words import STOP_WORDS, VOCABULARY, words
from pipelines.world.writers import (
    ALT_SHARES,
    habitual_descriptive,
    habitual_short,
    upsample,
    write_alt,
    write_descriptive,
    write_short,
)

WORLDS = [WorldConfig.small(), WorldConfig.rich()]


@pytest.mark.parametrize("config", WORLDS, ids=["small", "rich"])
def test_the_facts_of_a_descriptive_caption_are_the_facts_of_its_scene(config: WorldConfig) -> None:
    scenes = sample_scenes(config, 3000, seed=1)
    for caption, scene in zip(write_descriptive(scenes, seed=2), scenes, strict=True):
        said = facts(caption, config.grid)
        assert said.objects == scene_facts(scene).objects, caption
        assert (said.background, said.style) == (scene.background, scene.style), caption
        assert said.count in (None, len(scene.objects)), caption


@pytest.mark.parametrize("config", WORLDS, ids=["small", "rich"])
def test_relations_place_objects_as_cell_names_do(config: WorldConfig) -> None:
    scenes = sample_scenes(config, 2000, seed=3)
    captions = write_descriptive(scenes, seed=4, relation_share=1.0)
    for relation in ("left of", "right of", "above", "below", " it"):
        assert any(relation in caption for caption in captions)
    assert pooled(score_captions(captions, scenes))["exact"] == 1


@pytest.mark.parametrize("config", WORLDS, ids=["small", "rich"])
def test_a_captioners_habit_is_true_and_always_the_same_wording(config: WorldConfig) -> None:
    scenes = sample_scenes(config, 1000, seed=3)
    captions = habitual_descriptive(scenes)
    assert pooled(score_captions(captions, scenes))["exact"] == 1
    assert all(caption.endswith(" background") for caption in captions)
    for text, scene in zip(habitual_short(scenes), scenes, strict=True):
        assert facts(text, config.grid).objects == (
            ObjectFact(scene.main.shape, scene.main.colour),
        )


def test_a_short_caption_names_the_main_object_alone() -> None:
    scenes = sample_scenes(WorldConfig.small(), 500, seed=5)
    for caption, scene in zip(write_short(scenes, seed=6), scenes, strict=True):
        assert facts(caption).objects == (ObjectFact(scene.main.shape, scene.main.colour),)
        assert 3 <= len(caption.split()) <= 6


def test_an_alt_text_is_false_exactly_when_its_kind_is_wrong() -> None:
    scenes = sample_scenes(WorldConfig.small(), 3000, seed=7)
    texts = write_alt(scenes, seed=8)
    for alt, scene in zip(texts, scenes, strict=True):
        assert contradicts(facts(alt.text), scene) == (alt.kind == "wrong"), alt
        assert bool(facts(alt.text).objects) == (alt.kind in ("good", "partial", "wrong")), alt
    kinds = Counter(alt.kind for alt in texts)
    assert all(abs(kinds[kind] / 3000 - share) < 0.03 for kind, share in ALT_SHARES.items())


def test_upsampling_keeps_what_the_prompt_says_and_adds_the_rest() -> None:
    prompts = write_short(sample_scenes(WorldConfig.small(), 400, seed=9), seed=1)
    for prompt, caption in zip(prompts, upsample(prompts, seed=2), strict=True):
        (said,), (made_up,) = facts(prompt).objects, facts(caption).objects
        assert (said.shape, said.colour) == (made_up.shape, made_up.colour)
        assert None not in (made_up.size, made_up.cell)
        assert facts(caption).background is not None
    with pytest.raises(ValueError, match="coloured shape"):
        upsample(["click to enlarge"], seed=0)


def test_writers_stay_within_the_vocabulary_and_within_45_words() -> None:
    scenes = sample_scenes(WorldConfig.small(), 2000, seed=11)
    short = write_short(scenes, seed=1)
    descriptive = write_descriptive(scenes, seed=1)
    alt = [text.text for text in write_alt(scenes, seed=1)]
    for caption in [*short, *descriptive, *alt, *upsample(short, seed=1)]:
        assert set(words(caption)) <= set(VOCABULARY), caption
    assert max(len(words(caption)) for caption in descriptive) <= 45
    assert set(VOCABULARY) >= STOP_WORDS
    assert len(VOCABULARY) == len(set(VOCABULARY)) <= 135


def test_captions_are_seeded_and_stable_under_longer_lists() -> None:
    scenes = sample_scenes(WorldConfig.small(), 200, seed=12)
    for write in (write_short, write_descriptive):
        assert write(scenes, seed=1)[:50] == write(scenes[:50], seed=1)
        assert write(scenes, seed=1) != write(scenes, seed=2)


def test_a_caption_with_one_wrong_colour_loses_one_hit_in_precision_and_recall() -> None:
    scene = Scene(
        (SceneObject("ring", "red", "small", 0), SceneObject("bar", "blue", "large", 3)),
        "white",
        "plain",
    )
    caption = (
        "a small pink ring in the top-left, a large blue bar in the bottom-right, "
        "on a plain white background"
    )
    scores = pooled(score_captions([caption], [scene]))
    assert (scores["precision"], scores["recall"]) == (0.5, 0.5)
    assert (scores["background"], scores["exact"]) == (1, 0)


def test_text_that_no_writer_wrote_is_read_as_far_as_it_goes() -> None:
    assert facts("a red, shiny thing") == Facts((ObjectFact(colour="red"),))
    assert facts("below the red ring") == Facts()
    assert facts("a large moon right of it") == Facts((ObjectFact("moon", None, "large"),))
    assert facts("Dear reader!") == Facts()
