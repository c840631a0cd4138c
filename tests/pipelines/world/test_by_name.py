"""The demo's weights by the name `demo`."""

import pytest

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from pipelines.commands.curate import CurateSettings
from pipelines.commands.recaption import RecaptionCommandSettings
from pipelines.commands.score import ScoreCommandSettings
from pipelines.demo.demo import curate_settings, recaption_settings
from pipelines.demo.settings import DemoSettings


def test_demo_is_what_the_demo_takes():
    demo = curate_settings(DemoSettings())
    names = {"clip_model": "demo", "aesthetic_head": "demo", "nsfw_head": "demo"}
    for cls in (CurateSettings, ScoreCommandSettings):
        named = load_settings(cls, None, names)
        assert all(getattr(named, name) == getattr(demo, name) for name in names)
        assert named.clip_pretrained is None
        # On top of stored settings, which hold the folder.
        stored = {"clip_model": named.clip_model, "clip_pretrained": None}
        assert load_settings(cls, None, stored | {"nsfw_head": "demo"}).nsfw_head == demo.nsfw_head
    captioner = RecaptionCommandSettings(captioner="demo", clip_model="demo")
    assert captioner.captioner == recaption_settings(DemoSettings()).captioner
    assert captioner.clip_model == demo.clip_model


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"aesthetic_head": "demo"}, "say clip_model demo as well"),
        ({"clip_model": "demo", "nsfw_head": "laion-nsfw-l14"}, "another CLIP than the demo's"),
        ({"clip_model": "demo", "clip_pretrained": "openai"}, "brings its weights"),
    ],
)
def test_heads_of_another_clip_are_refused_in_one_sentence(given, says):
    with pytest.raises(ConfigError, match=says):
        load_settings(CurateSettings, None, given)
