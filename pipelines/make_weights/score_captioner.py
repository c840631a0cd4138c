"""What a captioner's folder writes of held-out scenes, through the engine that recaptions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.make_weights.captioner_pairs import encoded
from pipelines.make_weights.held_out import held_out_pictures
from pipelines.world.facts import facts, pooled, score_captions
from pipelines.world.scene import Scene
from recaption.captioning.settings import RecaptionSettings
from recaption.engines.protocol import CaptionRequest, Sampling
from recaption.engines.registry import identify, open_engine
from recaption.prompts.templates import load_templates


def held_out_files(
    n: int, seed: int, learnt: Sequence[Scene] = ()
) -> tuple[list[Scene], list[bytes]]:
    """n legible scenes and their pictures as PNG, none of them in `learnt`, offsets apart.

    Scenes of one object are few enough to be drawn twice: about one in twenty is left out.
    """
    known = {_still(scene) for scene in learnt}
    scenes, pictures = held_out_pictures(n + n // 4, seed, ugly=0.0, unsafe=0.0)
    fresh = [i for i, scene in enumerate(scenes) if _still(scene) not in known][:n]
    if len(fresh) < n:
        raise ValueError(f"only {len(fresh)} of the scenes drawn were not learnt from.")
    return [scenes[i] for i in fresh], [encoded(pictures.pixels[i]) for i in fresh]


def written_by(folder: Path, kind: str, pictures: Sequence[bytes], batch: int = 128) -> list[str]:
    """Greedy captions as `caplab recaption --captioner folder` asks for them ("" where it failed).

    About 100 descriptive captions a second on one core for a captioner of 2 M parameters.
    """
    settings = RecaptionSettings(captioner=str(folder), kinds=(kind,), batch_size=batch)
    sampling = Sampling(max_new_tokens=settings.lengths_of(kind).max_new_tokens)
    engine = open_engine(settings, identify(settings), sampling, settings)
    prompt = load_templates()[kind].render([None])[0]
    request = CaptionRequest(
        pictures=list(pictures),
        prompts=[prompt] * len(pictures),
        seeds=[0] * len(pictures),
        sampling=sampling,
    )
    return [outcome.text or "" for outcome in engine.caption(request)]


def captioner_scores(
    kind: str, captions: Sequence[str], scenes: Sequence[Scene]
) -> dict[str, float]:
    """Precision and recall of a kind's captions against the truth.

    descriptive: over all objects; one counts where colour, shape and place are right (`facts`);
    full_precision, full_recall, background and exact as in `facts.pooled`.
    short: over the main object alone, which is right in colour and shape.
    """
    if kind == "descriptive":
        return pooled(score_captions(captions, scenes))
    said = [[(f.colour, f.shape) for f in facts(text).objects] for text in captions]
    main = [(s.main.colour, s.main.shape) for s in scenes]
    hits = sum(name in objects for objects, name in zip(said, main, strict=True))
    return {
        "precision": hits / max(int(np.sum([len(objects) for objects in said])), 1),
        "recall": hits / len(scenes),
    }


def _still(scene: Scene) -> Scene:
    return replace(scene, objects=tuple(replace(o, dx=0, dy=0) for o in scene.objects))
