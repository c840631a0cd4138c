"""The parts of `caplab bench caption`, with a captioner that runs in milliseconds."""

from pathlib import Path

import pytest

from curate.base.errors import ConfigError
from pipelines.bench.caption.beside_generate import CaptionRun, caption_figures
from pipelines.bench.caption.random_captioners import parameters, write_captioner
from pipelines.bench.common.packed_pictures import pack_pictures, pictures_of

RUN = CaptionRun(preset="tiny", tokens=6, batch_sizes=(2, 4), whole_command=False)


def test_every_picture_is_captioned_with_the_tokens_asked_for(tmp_path: Path) -> None:
    figures = caption_figures([], 6, tmp_path, RUN)
    by_name = {figure.name.removeprefix("caption/transformers/"): figure for figure in figures}
    start = "tiny-random-weights/float32"
    assert by_name[f"{start}/captions_written"].value == 6
    assert by_name[f"{start}/output_tokens"].value == 6
    steady = by_name[f"{start}/images_per_second/steady_state"]
    assert steady.value > 0
    assert steady.peer_value is not None
    assert steady.peer_value > 0
    assert steady.goal == 0.95


def test_the_random_captioner_is_counted_and_made_once(tmp_path: Path) -> None:
    folder = write_captioner(tmp_path / "model", "tiny")
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert write_captioner(folder, "tiny") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert 100_000 < parameters(folder) < 300_000


def test_generated_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    one, two = (pictures_of(pack_pictures([], 5, tmp_path / name)) for name in ("one", "two"))
    assert one == two
    assert len(set(one)) == 5


def test_an_unknown_model_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="small"):
        write_captioner(tmp_path, "smal")
