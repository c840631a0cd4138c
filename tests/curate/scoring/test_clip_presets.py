"""Published CLIP models by short names: what they stand for, and what is refused."""

import pytest

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from curate.scoring.clip_presets import CLIP_PRESETS
from curate.scoring.scorers.clip import Clip
from curate.scoring.scorers.make import make_scorers
from curate.scoring.settings import ScoreSettings
from recaption.measure.settings import MeasureSettings


def test_every_name_is_one_of_open_clips_models_with_its_width_and_context() -> None:
    import open_clip

    for name, preset in CLIP_PRESETS.items():
        Clip(name)  # model, tag and QuickGELU agree
        config = open_clip.get_model_config(preset.model)
        said = (config["embed_dim"], config["text_cfg"]["context_length"])
        assert said == (preset.width, preset.tokens), name
        family = name.partition("-")[0]
        assert (preset.languages == "many") == (family in ("siglip2", "metaclip2"))


def test_settings_hold_what_a_name_stands_for() -> None:
    given = {"clip_model": "siglip2-so400m-384", "more_clips": "h=dfn5b-h14-378"}
    settings = load_settings(ScoreSettings, None, given)
    assert settings.clip_model == "ViT-SO400M-16-SigLIP2-384"
    assert settings.clip_pretrained == "webli"
    assert settings.more_clips == {"h": "ViT-H-14-378-quickgelu@dfn5b"}
    # `caplab score` lays what was given over what is stored, and must find the weights there.
    assert settings.model_fields_set >= {"clip_model", "clip_pretrained"}
    measured = load_settings(MeasureSettings, None, {"clip_model": "pe-core-b16"})
    assert (measured.clip_model, measured.clip_pretrained) == ("PE-Core-B-16", "meta")


def test_a_name_that_is_nearly_one_is_told_the_nearest() -> None:
    for given in ({"clip_model": "siglip2-so400m-348"}, {"more_clips": "a=siglip2-so400m-348"}):
        with pytest.raises(ConfigError, match="did you mean 'siglip2-so400m-384'"):
            make_scorers(load_settings(ScoreSettings, None, given))


def test_a_name_with_other_weights_is_refused() -> None:
    given = {"clip_model": "dfn5b-h14", "clip_pretrained": "openai"}
    with pytest.raises(ConfigError, match=r"'dfn5b-h14' is ViT-H-14-quickgelu@dfn5b and brings"):
        load_settings(ScoreSettings, None, given)
    with pytest.raises(ConfigError, match="brings its own weights"):
        Clip("dfn5b-h14", "openai")
    with pytest.raises(ConfigError, match="did you mean 'metaclip2-h14'"):
        Clip("metaclip-h14", "openai")


def test_the_head_of_siglip_is_refused_on_siglip_2_also_as_a_file(tmp_path) -> None:
    file = tmp_path / "aesthetic_predictor_v2_5.pth"
    for head in ("aesthetic-v2.5", str(file)):
        given = {"clip_model": "siglip2-so400m-384", "aesthetic_head": head}
        with pytest.raises(ConfigError, match=r"trained on ViT-SO400M-14-SigLIP-384@webli"):
            make_scorers(ScoreSettings(**given))
    given = {"clip_model": "siglip-so400m-384", "aesthetic_head": "aesthetic-v2.5"}
    # On the right one it gets past that check, to the file itself.
    given["aesthetic_head"] = str(file)
    with pytest.raises(ConfigError, match=r"aesthetic_predictor_v2_5.pth does not exist"):
        make_scorers(ScoreSettings(**given))
