"""Held-out pictures drawn again: prompts from a dataset, and the originals found in its shards."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from pipelines.judges.round_trip import RoundTripJudge, RoundTripOptions, round_trip_prompts
from tests.curate.tiny import tiny_clip
from tests.pipelines.judges.asked_rows import asked
from tests.train.data.small_dataset import make_dataset, picture, select


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = make_dataset(tmp_path_factory.mktemp("set") / "web", count=12)
    select(made, "held_out", [f"k{number:06d}" for number in range(4, 12)])
    return made


def original(key: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(picture(int(key[1:]), (24, 24)))))


def test_prompts_are_captions_of_the_same_pictures_in_each_kind(dataset):
    rows = round_trip_prompts(dataset, "held_out", ["alt", "descriptive"], 2).to_pylist()
    assert [row["form"] for row in rows] == ["alt", "alt", "descriptive", "descriptive"]
    assert [row["intent_id"] for row in rows[:2]] == [row["intent_id"] for row in rows[2:]]
    for row in rows:
        named = json.loads(row["intent"])
        number = int(named["key"][1:])
        assert number >= 4
        assert named["other"] != named["key"]
        colour = ("red", "green", "blue")[number % 3]
        texts = {"alt": f"IMG_{number}.jpg", "descriptive": f"a plain {colour} square"}
        assert row["prompt"] == texts[row["form"]]
    # Eight pictures, of which three have texts of their own in every kind.
    assert len(round_trip_prompts(dataset, "held_out", ["alt", "descriptive"], 9)) == 6
    one, more = (round_trip_prompts(dataset, "held_out", ["alt"], count) for count in (3, 5))
    assert more.slice(0, 3).equals(one)
    select(dataset, "single", ["k000004"])
    with pytest.raises(ConfigError, match="Fewer than two"):
        round_trip_prompts(dataset, "single", ["alt"], 1)


def tiny_dino(folder: Path) -> Path:
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=24, patch_size=8
    )
    Dinov2Model(config).save_pretrained(folder)
    side = {"height": 24, "width": 24}
    BitImageProcessor(size={"shortest_edge": 24}, crop_size=side).save_pretrained(folder)
    return folder


def dino_vectors(folder: Path, shown: list[np.ndarray]) -> np.ndarray:
    import torch
    from transformers import AutoImageProcessor, Dinov2Model

    inputs = AutoImageProcessor.from_pretrained(folder)(images=shown, return_tensors="pt")
    with torch.inference_mode():
        token = Dinov2Model.from_pretrained(folder)(**inputs).last_hidden_state[:, 0]
    return (token / token.norm(dim=-1, keepdim=True)).numpy()


def clip_vectors(files: tuple[Path, Path], shown: list[np.ndarray]) -> np.ndarray:
    import open_clip
    import torch
    from open_clip.transform import image_transform
    from safetensors.torch import load_file

    model = open_clip.CLIP(**json.loads(files[0].read_text())).eval()
    model.load_state_dict(load_file(files[1]))
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    transform = image_transform(32, is_train=False, **statistics)
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(one)) for one in shown])
        return model.encode_image(batch, normalize=True).numpy()


@pytest.mark.parametrize("encoder", ["clip", "dino"])
def test_similarities_are_cosines_with_the_original_and_with_another(dataset, tmp_path, encoder):
    place = str(dataset.directory)
    if encoder == "clip":
        files = tiny_clip(tmp_path)
        options = RoundTripOptions(dataset=place, model=str(files[0]), pretrained=str(files[1]))
    else:
        folder = tiny_dino(tmp_path)
        options = RoundTripOptions(dataset=place, encoder="dino", model=str(folder), batch_size=2)
    judge = RoundTripJudge(options, "cpu")
    prompts = round_trip_prompts(dataset, "held_out", ["alt"], 3)
    named = [json.loads(intent) for intent in prompts["intent"].to_pylist()]
    own, other = ([original(one[which]) for one in named] for which in ("key", "other"))
    drawn = [*own[:1], *np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)]
    scores = judge.score(np.stack(drawn), prompts)
    vectors = [
        clip_vectors(files, some) if encoder == "clip" else dino_vectors(folder, some)
        for some in (drawn, own, other)
    ]
    expected = [(vectors[0] * of).sum(axis=1) for of in vectors[1:]]
    assert scores["round_trip_similarity"] == pytest.approx(expected[0], abs=1e-3)
    assert scores["round_trip_floor"] == pytest.approx(expected[1], abs=1e-3)
    assert scores["round_trip_similarity"][0] == pytest.approx(1, abs=1e-3)
    assert np.array_equal(judge.targets(prompts, 24), np.stack(own))
    other_prompts = asked(["a fox"])
    assert np.isnan(judge.score(drawn[0][None], other_prompts)["round_trip_similarity"]).all()
    assert judge.targets(other_prompts, 24) is None
    with pytest.raises(ConfigError, match="not gone"):
        judge.score(drawn[0][None], asked(["a fox"], [{"key": "gone", "other": "gone"}]))
