"""Settings: defaults, YAML, overrides, and refusals in one sentence."""

import pytest
from pydantic import Field

from curate.errors import ConfigError
from curate.settings import Settings, load_settings


class Example(Settings):
    """Settings with one field of each role."""

    image_size: int = Field(256, gt=0, description="Pixels")
    workers: int = Field(2, description="Workers", json_schema_extra={"identity": False})


def test_overrides_win_over_yaml_and_yaml_over_defaults(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("image_size: 512\nworkers: 4\n")
    assert load_settings(Example).image_size == 256
    assert load_settings(Example, path).image_size == 512
    loaded = load_settings(Example, path, {"image_size": 64})
    assert (loaded.image_size, loaded.workers) == (64, 4)


def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("imagesize: 512\n")
    with pytest.raises(ConfigError, match="did you mean 'image_size'"):
        load_settings(Example, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("image_size: -1", "image_size = -1"), ("[1, 2]", "name: value"), ("a: [", "not valid YAML")],
)
def test_a_wrong_file_gives_one_sentence(tmp_path, text, message):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(Example, path)
    assert str(caught.value).count("\n") <= 6


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(Example, tmp_path / "none.yaml")


def test_operational_settings_are_no_part_of_the_identity():
    assert Example(workers=1).identity() == Example(workers=8).identity() == {"image_size": 256}
    assert Example(image_size=64).identity() != Example().identity()


def test_the_settings_of_a_part_come_out_of_a_command_s_settings():
    class Command(Example):
        name: str = "x"

    assert Command(image_size=32).part(Example) == Example(image_size=32)
