"""Settings: defaults, YAML, overrides, and refusals in one sentence."""

import pytest
from pydantic import Field

from curate.base.errors import ConfigError
from curate.base.settings import (
    Device,
    Precision,
    Settings,
    device_of,
    load_settings,
    precision_of,
)


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
    [
        ("image_size: -1", "image_size = -1"),
        ("[1, 2]", "name: value"),
        ("a: [", "not valid YAML"),
        ("image_size: 1\nimage_size: 2\n", "'image_size' stands there twice"),
    ],
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


class Texts(Settings):
    """What a text in YAML may stand for."""

    tag: str | None = None
    limit: int | None = 3
    names: tuple[str, ...] | None = ("a",)
    shares: dict[str, float] = Field({})
    nested: tuple[tuple[str, str], ...] = ()
    word: str = "x"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("tag: none", None),
        ("limit: none", None),
        ("names: none", None),
        ("names: a, b", ("a", "b")),
        ("shares: a=0.5,b=0.5", {"a": 0.5, "b": 0.5}),
        ("word: none", "none"),
        ("word: a,b", "a,b"),
    ],
)
def test_a_text_in_yaml_means_what_it_means_as_an_option(tmp_path, line, value):
    path = tmp_path / "settings.yaml"
    path.write_text(line)
    assert getattr(load_settings(Texts, path), line.partition(":")[0]) == value


def test_a_text_that_is_no_list_or_mapping_is_refused_in_one_sentence():
    with pytest.raises(ConfigError, match="'a' is not of the form name=value"):
        load_settings(Texts, None, {"shares": "a,b=0.5"})
    with pytest.raises(ConfigError, match="nested = 'a,b' is not allowed"):
        load_settings(Texts, None, {"nested": "a,b"})


class Computes(Settings):
    """Where and in which precision."""

    precision: Precision = "auto"
    device: Device = "auto"


@pytest.mark.parametrize("word", ["fp8", "bfloat16", "float32", "BF16", "16", ""])
def test_a_word_that_is_no_precision_is_refused_with_those_that_are(word):
    with pytest.raises(ConfigError, match="'auto', 'fp32', 'bf16' or 'fp16'"):
        load_settings(Computes, None, {"precision": word})


@pytest.mark.parametrize("word", ["mps", "gpu", "CUDA", "cuda:", "cuda:-1", "cpu:0", "0", ""])
def test_a_word_that_is_no_device_is_refused_with_those_that_are(word):
    with pytest.raises(ConfigError, match="use auto, cpu, cuda or cuda:N"):
        load_settings(Computes, None, {"device": word})
    with pytest.raises(ConfigError, match="use auto, cpu, cuda or cuda:N"):
        device_of(word)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Make torch see so many GPUs of a generation."""
    cuda = pytest.importorskip("torch").cuda

    def see(count: int, capability: tuple[int, int] = (9, 0)) -> None:
        monkeypatch.setattr(cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(cuda, "device_count", lambda: count)
        monkeypatch.setattr(cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(cuda, "get_device_name", lambda device: "Quadro RTX 6000")

    return see


def test_auto_is_the_gpu_where_there_is_one(gpus):
    gpus(0)
    assert (device_of("auto"), precision_of("auto", "auto")) == ("cpu", "fp32")
    gpus(1)
    assert (device_of("auto"), precision_of("auto", "auto")) == ("cuda", "bf16")
    assert precision_of("auto", "cpu") == "fp32"
    gpus(1, (7, 5))
    assert precision_of("auto", "cuda") == "fp32"


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_a_gpu_that_is_not_there_is_refused_in_every_precision(gpus, precision):
    gpus(0)
    with pytest.raises(ConfigError, match="'cuda:7', but torch finds no GPU"):
        precision_of(precision, "cuda:7")
    gpus(2)
    assert device_of("cuda:1") == "cuda:1"
    with pytest.raises(ConfigError, match="'cuda:2', but torch finds 2 GPUs, counted from 0"):
        precision_of(precision, "cuda:2")


def test_bf16_is_refused_on_a_gpu_that_cannot_compute_it(gpus):
    gpus(1, (7, 5))
    assert precision_of("fp16", "cuda") == "fp16"
    with pytest.raises(ConfigError, match="GPU Quadro RTX 6000 does not compute it"):
        precision_of("bf16", "cuda")
