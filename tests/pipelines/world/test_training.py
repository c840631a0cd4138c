from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.world.examples import GOOD_SCORE, UGLY_SCORE, corrupted, stored_pictures
from pipelines.world.facts import contradicts, facts
from pipelines.world.held_out import apply_head, area_under_roc
from pipelines.world.optimize import Trainer, epochs, hidden_matrices
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.train_heads import save_head, train_head
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_trainer_fits_a_small_net_in_either_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    x = torch.randn(256, 4)
    y = (x[:, :1] * x[:, 1:2]).tanh()
    trainer = Trainer(net, ["2.weight"], steps=200, dtype=dtype, adam_rate=1e-2)
    for _ in range(200):
        trainer.step((net(x.to(dtype)).float() - y).square().mean())
    trainer.finish()
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert float((net(x).detach() - y).square().mean()) < 0.1 * float(y.square().mean())


def test_muon_refuses_what_is_no_matrix() -> None:
    with pytest.raises(ValueError, match="matrices"):
        Trainer(nn.Linear(2, 2), ["bias"], steps=1)
    assert hidden_matrices(nn.Linear(2, 2), ()) == ["weight"]


def test_an_epoch_shows_every_row_once() -> None:
    batches = epochs(12, 4, torch.Generator().manual_seed(0))
    first = torch.cat([rows for rows, _ in zip(batches, range(3), strict=False)])
    assert sorted(first.tolist()) == list(range(12))
    with pytest.raises(ValueError, match="fill"):
        next(iter(epochs(3, 4, torch.Generator())))


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
