"""The demo's own small weights under the name `demo`, wherever a command takes a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import model_validator

from curate.base.settings import NONE, Settings
from pipelines.world import weights

DEMO = "demo"
_HEADS = {"aesthetic_head": weights.aesthetic_head_path, "nsfw_head": weights.nsfw_head_path}


class DemoByName(Settings):
    """`demo` stands for the demo's CLIP, its heads and its captioner. A folder is `./demo`."""

    @model_validator(mode="before")
    @classmethod
    def _demo_by_name(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        clip = f"local-dir:{weights.clip_dir()}"
        found = dict(given)
        if found.get("captioner") == DEMO:
            found["captioner"] = str(weights.captioner_dir())
        if found.get("clip_model") == DEMO:
            if found.get("clip_pretrained", NONE) not in (None, NONE):
                raise ValueError("the demo's CLIP brings its weights; leave out clip_pretrained")
            found |= {"clip_model": clip, "clip_pretrained": None}
        for name, path in _HEADS.items():
            head = found.get(name)
            if head == DEMO and found.get("clip_model") != clip:
                raise ValueError(
                    f"{name} demo reads the embeddings of the demo's CLIP; say clip_model demo as "
                    f"well, or name a head of your CLIP"
                )
            if head == DEMO:
                found[name] = str(path())
            elif head not in (None, NONE) and found.get("clip_model") == clip:
                _refuse_published(name, str(head))
        return found


def as_named(text: str) -> str:
    """A text that names the demo's weights by their place, with the name that they go by."""
    for place in (f"local-dir:{weights.clip_dir()}", str(weights.captioner_dir())):
        text = text.replace(place, DEMO)
    return text


def _refuse_published(name: str, head: str) -> None:
    if not Path(head).exists():
        raise ValueError(
            f"{name} {head} reads the embeddings of another CLIP than the demo's; say {name} demo, "
            f"or give a file of your own"
        )
