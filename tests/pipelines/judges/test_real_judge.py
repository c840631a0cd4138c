"""Sets of pictures beside real ones: tiny random networks of the published architectures."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from curate.base.settings import load_settings
from curate.store.shards import iter_shard
from pipelines.judges.prompts import PROMPTS
from pipelines.judges.real import distances
from pipelines.judges.real.judge import RealJudge
from pipelines.judges.real.settings import RealOptions
from tests.curate.tiny import encoded, make_dataset, tiny_clip

ASKED = PROMPTS.empty_table()
SIDE = 32


def options(**given):
    return load_settings(RealOptions, overrides=given)


def photographs(count: int, seed: int, brighter: int = 0):
    """Smooth random pictures, (count, SIDE, SIDE, 3)."""
    small = np.random.default_rng(seed).integers(0, 200, (count, 4, 4, 3)) + brighter
    return small.astype(np.uint8).repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("real")
    for number, pixels in enumerate(photographs(60, seed=1)):
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    return place


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return "@".join(map(str, tiny_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture(scope="module")
def judge(folder, clip, tmp_path_factory):
    metrics = "mind_clip,kid_clip,fid_clip,cmmd,precision_clip,recall_clip,vendi_clip"
    keep = tmp_path_factory.mktemp("kept")
    return RealJudge(options(metrics=metrics, reference=folder, clip=clip, keep=keep), "cpu")


def test_real_pictures_get_about_the_floor_and_others_more(judge):
    same = judge.score_set(photographs(25, seed=2), ASKED)
    other = judge.score_set(photographs(25, seed=2, brighter=55), ASKED)
    assert tuple(same) == judge.metrics
    for name in ("mind_clip", "fid_clip", "cmmd"):
        value, floor = same[name]
        assert 0.3 * floor < value < 3 * floor
        assert other[name][1] == floor
        assert other[name][0] > 2 * floor
    assert other["precision_clip"][0] < same["precision_clip"][0]
    assert 1 < same["vendi_clip"][0] <= 25


def test_features_of_the_reference_are_kept_by_content_and_draws_are_disjoint(judge, folder):
    kept = list(judge.options.keep.iterdir())
    model = judge.models["clip"]
    first = judge.reference.features(model, 20, SIDE, judge.options.keep)
    (new,) = set(judge.options.keep.iterdir()) - set(kept)
    assert len(np.unique(np.concatenate(first), axis=0)) == 40
    before = new.stat().st_mtime_ns
    again = judge.reference.features(model, 20, SIDE, judge.options.keep)
    assert new.stat().st_mtime_ns == before
    assert np.array_equal(first, again)
    # A larger N keeps what a smaller one drew.
    larger = judge.reference.features(model, 30, SIDE, judge.options.keep)
    assert np.allclose(larger[0][:20], first[0], atol=1e-6)


def test_a_set_is_drawn_down_to_the_pictures_asked_for(judge, folder, clip, tmp_path):
    ten = RealJudge(
        options(metrics="fid_clip", reference=folder, clip=clip, pictures=10, keep=tmp_path), "cpu"
    )
    assert ten.used(25) == 10
    assert "10 pictures are too few for a covariance" in " ".join(ten.limits)
    value, floor = ten.score_set(photographs(25, seed=2), ASKED)["fid_clip"]
    # The fewer, the higher: both would be read as worse than those of 25.
    assert floor > judge.score_set(photographs(25, seed=2), ASKED)["fid_clip"][1]
    assert np.isfinite(value)
    with pytest.raises(ConfigError, match="A set has 9 pictures; the judge real needs 10"):
        ten.score_set(photographs(9, seed=2), ASKED)
    with pytest.raises(ConfigError, match="holds 60 pictures; sets of 31 need 62"):
        judge.score_set(photographs(31, seed=2), ASKED)


def test_a_selection_of_a_dataset_is_a_reference(clip, tmp_path):
    shards = [photographs(12, seed=3), photographs(8, seed=4)]
    dataset = make_dataset(tmp_path / "data", [[(encoded(p), "a") for p in s] for s in shards])
    keys = sorted(key for s in dataset.shards() for key, _, _ in iter_shard(dataset, s))
    dataset.write_selection("best", pa.array(keys[:12]), {})
    asked = {"metrics": "mind_clip", "clip": clip, "keep": tmp_path / "kept"}
    asked["reference"] = dataset.directory
    whole = RealJudge(options(**asked), "cpu")
    assert len(whole.reference) == 20
    judge = RealJudge(options(**asked, selection="best"), "cpu")
    assert judge.identity()["models"] == whole.identity()["models"]
    assert judge.identity()["reference"] != whole.identity()["reference"]
    features = judge.reference.features(judge.models["clip"], 6, SIDE, tmp_path / "kept")
    pictures = {key: raw for s in dataset.shards() for key, raw, _ in iter_shard(dataset, s)}
    chosen = [np.asarray(Image.open(io.BytesIO(pictures[key]))) for key in keys[:12]]
    direct = judge.models["clip"](np.stack(chosen))
    assert np.sort(np.concatenate(features), axis=0) == pytest.approx(np.sort(direct, axis=0))


def test_diversity_needs_no_reference(clip):
    judge = RealJudge(options(metrics="vendi_clip", clip=clip), "cpu")
    value, floor = judge.score_set(photographs(8, seed=2), ASKED)["vendi_clip"]
    assert value == distances.vendi(judge.models["clip"](photographs(8, seed=2)))
    assert np.isnan(floor)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metrics": "fit", "clip": "x@y"}, "did you mean 'fid'"),
        ({"metrics": "cmmd", "clip": "x@y"}, "cmmd needs `reference`"),
        ({"metrics": "cmmd", "reference": "."}, "cmmd needs `clip`"),
        ({"metrics": "vendi_clip,vendi_clip", "clip": "x@y"}, "names one twice"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_any_work(given, words):
    with pytest.raises(ConfigError, match=words):
        options(**given)


def test_a_reference_that_cannot_serve_is_told(folder, clip, tmp_path):
    asked = {"metrics": "mind_clip", "clip": clip, "keep": tmp_path / "kept"}
    for given, words in [
        ({"reference": tmp_path / "nowhere"}, "does not exist"),
        ({"reference": tmp_path}, "holds no picture"),
        ({"reference": folder, "selection": "best"}, "is no dataset"),
        ({"reference": folder, "pictures": 31}, "holds 60 pictures; sets of 31"),
    ]:
        with pytest.raises(ConfigError, match=words):
            RealJudge(options(**asked, **given), "cpu")
    broken = tmp_path / "broken"
    broken.mkdir()
    for number, pixels in enumerate(photographs(10, seed=1)):
        Image.fromarray(pixels).save(broken / f"{number}.png")
    (broken / "3.png").write_bytes(b"no picture")
    judge = RealJudge(options(**asked, reference=broken), "cpu")
    with pytest.raises(DatasetError, match=r"3\.png of .* cannot be read"):
        judge.score_set(photographs(5, seed=2), ASKED)
