"""Settings: presets below, overrides above, and one clear sentence for what is wrong."""

from pathlib import Path

import pytest
import torch

from curate.base.errors import ConfigError
from train.assemble import build_model
from train.presets import load_preset, preset_names
from train.settings import TrainSettings, load_train_settings, model_config
from train.sources import refuse_missing


def test_every_preset_makes_settings_and_a_model_config() -> None:
    assert {"world-small", "photo-64", "sd15", "flux", "dit-33m"} <= set(preset_names())
    for name in preset_names():
        config = model_config(TrainSettings(model=name))
        assert config.resolution % config.backbone.config.get("patch_size", 1) == 0


def test_given_values_go_over_the_presets(tmp_path: Path) -> None:
    preset = load_preset("tiny-test")["train"]
    assert load_train_settings(None, {"model": "tiny-test"}).steps == preset["steps"]
    file = tmp_path / "run.yaml"
    file.write_text("model: tiny-test\nsteps: 5\nseed: 7\n")
    settings = load_train_settings(file, {"seed": 9})
    assert (settings.steps, settings.seed, settings.batch_size) == (5, 9, preset["batch_size"])


def test_a_yaml_file_of_ones_own_is_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: tiny-test\nmodel: {backbone: {config: {num_layers: 3}}}\ntrain: {steps: 3}\n"
    )
    settings = TrainSettings(model=str(file))
    assert (settings.steps, settings.log_every) == (3, 1)
    config = model_config(settings).backbone.config
    assert (config["num_layers"], config["patch_size"]) == (3, 8)


def test_a_preset_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"base: {two}\n")
    two.write_text(f"base: {one}\n")
    with pytest.raises(ConfigError, match="is its own base"):
        TrainSettings(model=str(one))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"stepz": 5}, "did you mean 'steps'"),
        ({"model": "world-smal"}, "did you mean 'world-small'"),
        ({"captions": {"alt": 0.5}}, "sum to 0.5 and must sum to 1"),
        ({"steps": 0}, "steps = 0"),
        ({"objective": "ddpm", "prediction_type": "velocity"}, "predicts sample or epsilon or v_"),
        ({"lora_rank": 4}, "need init_from"),
        ({"captions": {"alt": float("nan")}}, "captions.alt = nan.*finite"),
        ({"adamw_learning_rate": float("inf")}, "adamw_learning_rate = inf.*finite"),
        ({"sampler": "ddim"}, "objective flow has no sampler 'ddim'; it has euler, dpm"),
        ({"model": "sd15", "sampling_steps": 61}, "61 sampler steps to 62"),
        ({"snr_gamma": 5.0}, "snr_gamma and zero_terminal_snr are DDPM's; objective flow has no"),
        ({"batch_size": 6, "gradient_accumulation_steps": 4}, "must divide batch_size"),
    ],
)
def test_a_bad_setting_gives_one_sentence(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_train_settings(None, given)
    assert "\n" not in str(caught.value)


def test_an_earlier_name_of_a_setting_is_answered_with_the_present_one() -> None:
    with pytest.raises(ConfigError, match="caption_dropout is called prompt_dropout_prob now"):
        load_train_settings(None, {"caption_dropout": 0.2})


def test_a_bad_model_config_gives_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {resolutoin: 30}\n")
    with pytest.raises(ConfigError, match="did you mean 'resolution'"):
        model_config(TrainSettings(model=str(file)))
    file.write_text("modle: {}\n")
    with pytest.raises(ConfigError, match="must hold `base:`, `model:` and `train:`"):
        TrainSettings(model=str(file))


def test_how_a_run_works_is_no_part_of_its_identity() -> None:
    one, two = TrainSettings(model="tiny-test"), TrainSettings(model="tiny-test", threads=2)
    assert one.identity() == two.identity()
    assert one.identity() != TrainSettings(model="tiny-test", seed=1).identity()


def test_the_network_starts_silent_and_ignores_padding() -> None:
    config = model_config(TrainSettings(model="tiny-test"))
    model = build_model(config, TrainSettings(model="tiny-test"), ["a b c d e"])
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([300.0, 900.0])
    ids = torch.tensor([[3, 4, 1, 0], [5, 1, 0, 0]])

    def read(ids: torch.Tensor) -> torch.Tensor:
        names = [name for name in model.text.tokenize(["a"]) if name.endswith((".ids", ".mask"))]
        return model(x, t, {n: ids if n.endswith(".ids") else (ids != 0).long() for n in names})

    assert read(ids).abs().max() == 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    torch.testing.assert_close(
        read(ids), read(torch.nn.functional.pad(ids, (0, 5))), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("source", ["./nowhere", "nowhere", "/a/b/c"])
def test_a_source_that_is_nowhere_is_said_at_once(source: str) -> None:
    with pytest.raises(ConfigError, match=f"no folder {source}, and a hub id has the form"):
        refuse_missing(source)
