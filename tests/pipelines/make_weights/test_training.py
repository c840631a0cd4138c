from pathlib import Path

import numpy as np
import torch
from torch import nn

from curate.base.files import read_json
from pipelines.make_weights.all import train_demo_weights
from pipelines.make_weights.examples import GOOD_SCORE, UGLY_SCORE, corrupted, stored_pictures
from pipelines.make_weights.held_out import apply_head, area_under_roc
from pipelines.make_weights.train_clip import ClipTraining
from pipelines.make_weights.train_heads import save_head, train_head
from pipelines.world.facts import contradicts, facts
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.weights import manifest_path
from pipelines.world.writers import write_descriptive

CONFIG = WorldConfig.small()
SCENES = sample_scenes(CONFIG, 200, seed=1)


def test_stored_pictures_are_seeded_and_scored() -> None:
    pictures = stored_pictures(SCENES, CONFIG, seed=2)
    assert pictures.pixels.shape == (200, 64, 64, 3)
    np.testing.assert_array_equal(pictures.pixels, stored_pictures(SCENES, CONFIG, seed=2).pixels)
    good = pictures.spoiler == ""
    assert set(pictures.aesthetic[good]) == {GOOD_SCORE}
    assert pictures.aesthetic[~good].min() >= UGLY_SCORE
    assert 0.1 < np.mean(~good) < 0.3
    assert 0.05 < np.mean(pictures.unsafe) < 0.2


def test_a_corrupted_scene_contradicts_the_true_caption() -> None:
    wrong = corrupted(SCENES, CONFIG, seed=3)
    captions = write_descriptive(SCENES, seed=4)
    assert all(contradicts(facts(c), s) for c, s in zip(captions, wrong, strict=True))
    assert all(
        len(a.objects) == len(b.objects) and a.background == b.background
        for a, b in zip(SCENES, wrong, strict=True)
    )


def test_a_head_survives_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    embeddings = nn.functional.normalize(torch.randn(500, 8), dim=1)
    chance = train_head(embeddings, (embeddings[:, 0] > 0).float(), "sigmoid", seed=0, steps=200)
    save_head(chance, tmp_path / "head.safetensors", "sigmoid")
    with torch.no_grad():
        expected = chance(embeddings)[:, 0].sigmoid().numpy()
    got = apply_head(tmp_path / "head.safetensors", embeddings)
    np.testing.assert_allclose(got, expected, atol=5e-3)
    assert area_under_roc(got[embeddings[:, 0] > 0], got[embeddings[:, 0] <= 0]) > 0.99


def test_the_area_under_the_curve_counts_ties_as_half() -> None:
    assert area_under_roc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert area_under_roc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert area_under_roc(np.array([0.0, 2.0]), np.array([1.0])) == 0.5


def test_all_weights_are_made_from_nothing_and_load_where_the_shipped_ones_do(
    tmp_path: Path,
) -> None:
    few = {"epochs": 1.0, "batch_size": 16, "width": 32, "depth": 1, "vision_depth": 1}
    manifest = train_demo_weights(
        tmp_path, 3, ClipTraining(steps=2, batch=16, weak_texts=4), few, pictures=200, held_out=100
    )
    shipped = read_json(manifest_path())
    own = {name for name in manifest["sha256"] if not name.startswith("captioner/")}
    assert own == {name for name in shipped["sha256"] if not name.startswith("captioner/")}
    assert "captioner/model.safetensors" in manifest["sha256"]
    assert set(shipped["held_out"]) - set(manifest["held_out"]) == {"short_main_object"}
    assert not (tmp_path / "captioner.fit").exists()
