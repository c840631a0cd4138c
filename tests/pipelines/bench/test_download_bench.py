"""The parts of `caplab bench download`: its pictures, its server and its measure of quality."""

import io
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.base.errors import ConfigError
from pipelines.bench.common.loopback import serving
from pipelines.bench.download.beside_img2dataset import psnr
from pipelines.bench.download.photo_mix import make_mix


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(20):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:02d}.jpg", quality=95)
    return folder


def test_the_same_photographs_give_the_same_mix_of_sizes(photographs, tmp_path):
    first = make_mix(photographs, tmp_path / "a", 6)
    again = make_mix(photographs, tmp_path / "b", 6)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    sizes = [Image.open(path).size for path in first]
    assert all(400 <= max(size) <= 1600 for size in sizes)
    assert len(set(sizes)) == 6


def test_too_few_photographs_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no pictures"):
        make_mix(tmp_path, tmp_path / "mix", 1)


def test_the_server_gives_each_file_and_knows_no_other(photographs):
    with serving(photographs) as url:
        with urllib.request.urlopen(f"{url}/03.jpg") as answer:
            assert answer.read() == (photographs / "03.jpg").read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/none.jpg")


def test_quality_is_against_a_full_decode_and_lanczos(photographs):
    path = photographs / "00.jpg"
    small = Image.open(path).resize((160, 120), Image.Resampling.LANCZOS)
    best, worse = io.BytesIO(), io.BytesIO()
    small.save(best, "PNG")
    Image.open(path).resize((160, 120), Image.Resampling.NEAREST).save(worse, "PNG")
    assert psnr(path, best.getvalue()) == 60
    assert 20 < psnr(path, worse.getvalue()) < 60
