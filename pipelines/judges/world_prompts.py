"""Scenes of the synthetic world as prompts: every scene in every form and wording.

    form         wordings                               asks for
    descriptive  captioner, varied, place-first, typed  the whole scene
    short        captioner, varied, typed               its main object
    upsampled    captioner                              the same: what was made up is no intent
    alt          own                                    its main object, as a page would name it
    tags, json   own                                    the whole scene, as captions of that format

A short prompt means an object of its colour and shape and nothing else of the scene, so that equal
texts mean the same; size, place and background of its intent are what up-sampling makes up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from pipelines.judges.prompts import PROMPTS
from pipelines.judges.world import asks_for, world_config
from pipelines.judges.world_settings import Form, WorldPromptSettings
from pipelines.world.scene import Combinations, Scene, SceneObject, WorldConfig, sample_scenes
from pipelines.world.wordings import DESCRIPTIVE, SHORT, as_json
from pipelines.world.words import PLACES, article
from pipelines.world.writers import habitual_short, made_up_scenes, write_alt
from recaption.prompts.file import rows_of
from recaption.transforms.tags import tags


def world_prompts(options: WorldPromptSettings) -> pa.Table:
    """Prompts in the schema PROMPTS; more scenes add prompts and change none.

    Equal texts within a form and wording stand once: see `distinct_texts`.

    Raises:
        ConfigError: too few scenes are left that were never trained on, or `exclude_scenes` holds
            no scenes.
    """
    config = world_config(options.world)
    scenes = _scenes(options, config)
    pairs = _made_up(config)
    mains = list(dict.fromkeys(pairs[s.main.shape, s.main.colour] for part in scenes for s in part))
    rows: list[dict[str, Any]] = []
    for form in options.forms:
        for wording in _wordings(form, options):
            if form not in ("short", "upsampled"):
                # Part by part: a scene's words hang on its row alone.
                meant = [scene for part in scenes for scene in part]
                texts = [
                    text
                    for number, part in enumerate(scenes)
                    for text in _texts_of(form, wording, part, options.seed + number)
                ]
            else:
                worded = _texts_of(form, wording, list(pairs.values()), options.seed)
                said = dict(zip(pairs.values(), worded, strict=True))
                meant, texts = mains, [said[scene] for scene in mains]
            first = dict(zip(reversed(texts), reversed(meant), strict=True))
            rows += [
                _row(form, wording, text, first[text], config) for text in dict.fromkeys(texts)
            ]
    return pa.Table.from_pylist(rows, schema=PROMPTS)


def distinct_texts(prompts: pa.Table) -> dict[tuple[str, str], int]:
    """(form, wording) -> how many texts there are; what is short of the scenes was said before."""
    counted = prompts.group_by(["form", "wording"], use_threads=False).aggregate(
        [([], "count_all")]
    )
    return {(row["form"], row["wording"]): row["count_all"] for row in counted.to_pylist()}


def _wordings(form: Form, options: WorldPromptSettings) -> Sequence[str]:
    if form == "upsampled":
        return ["captioner"]
    if form in ("alt", "tags", "json"):
        return ["own"]
    writers = DESCRIPTIVE if form == "descriptive" else SHORT
    known = [wording for wording in options.wordings if wording in writers]
    if not known:
        raise ConfigError(
            f"There are no {form} prompts in the wordings {', '.join(options.wordings)}; those of "
            f"{form} prompts are {', '.join(writers)}."
        )
    return known


def _texts_of(form: Form, wording: str, scenes: Sequence[Scene], seed: int) -> list[str]:
    if not scenes:
        return []
    if form == "alt":
        return [text.text for text in write_alt(scenes, seed, {"good": 1.0})]
    if form == "upsampled":  # the rule that made the scenes up, whose words say them
        return DESCRIPTIVE["captioner"](scenes, seed)
    if form == "json":
        return as_json(scenes)
    if form == "tags":  # by the rule that made such captions
        return [str(tags(text)) for text in DESCRIPTIVE["captioner"](scenes, seed)]
    return (DESCRIPTIVE if form == "descriptive" else SHORT)[wording](scenes, seed)


def _scenes(options: WorldPromptSettings, config: WorldConfig) -> tuple[list[Scene], list[Scene]]:
    """Distinct scenes that were never trained on: of seen pairs, and those with a held-out one."""
    excluded = set()
    if options.exclude_scenes is not None:
        path = Path(options.exclude_scenes)
        given = [row.get("scene") for row in rows_of(path, ["scene"]) if row is not None]
        if not any(given):
            raise ConfigError(f"{path} needs a column named 'scene' and one row.")
        excluded = {_still(Scene.from_json(str(scene))) for scene in given}
    secret = round(options.scenes * options.held_out_share)

    def draw(count: int, combinations: Combinations, seed: int) -> list[Scene]:
        # More than asked for, so that enough are left when those that were seen are dropped.
        drawn = map(_still, sample_scenes(config, 4 * count, seed, combinations))
        unseen = [scene for scene in dict.fromkeys(drawn) if scene not in excluded][:count]
        if len(unseen) < count:
            raise ConfigError(
                f"Only {len(unseen)} of {count} scenes were never trained on; ask for fewer scenes."
            )
        return unseen

    seen = draw(options.scenes - secret, "seen", options.seed)
    return seen, draw(secret, "held_out", options.seed + 1) if secret else []


def _still(scene: Scene) -> Scene:
    """A scene shifted by a pixel is the same scene to a caption, so it counts as seen."""
    return replace(scene, objects=tuple(replace(o, dx=0, dy=0) for o in scene.objects))


def _made_up(config: WorldConfig) -> dict[tuple[str, str], Scene]:
    """(shape, colour) -> the scene that up-sampling makes of "a COLOUR SHAPE"; always the same."""
    alone = [
        Scene((SceneObject(shape, colour, config.sizes[0], 0),), "white", "plain", config.grid)
        for shape in config.shapes
        for colour in config.colours
    ]
    made = made_up_scenes(habitual_short(alone), 0, config.grid)
    return {(scene.main.shape, scene.main.colour): scene for scene in made}


def _row(form: Form, wording: str, text: str, scene: Scene, config: WorldConfig) -> dict[str, Any]:
    main, count = scene.main, len(scene.objects)
    if asks_for(form) == "scene":
        asked = scene.objects
        questions = [
            f"Is there {article(f'{o.size} {o.colour} {o.shape}')} in the "
            f"{PLACES[scene.grid][o.cell]}?"
            for o in asked
        ]
        questions.append(f"Is the background {scene.style} {scene.background}?")
    else:
        asked = (main,)
        questions = [f"Is there {article(f'{main.colour} {main.shape}')}?"]
    # An object alone, wherever it stands, is what short prompts and their up-sampled form mean.
    of_object = form in ("short", "upsampled")
    row = {
        "form": form,
        "wording": wording,
        "intent_id": fingerprint([main.shape, main.colour] if of_object else scene.to_json()),
        "prompt": text,
        "intent": scene.to_json(),
        "category": f"{count} object{'s'[: count > 1]}",
        "questions": questions,
        "held_out": any((o.shape, o.colour) in config.held_out for o in asked),
    }
    return {"prompt_id": fingerprint(row), **row}
