"""LAION's own files: what the registry says of them, and what they say of embeddings."""

import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import ConfigError
from curate.base.files import sha256_file
from curate.scoring.scorers.head_source import find_head
from curate.scoring.scorers.heads import Head, Preparation
from curate.scoring.scorers.keras_head import convert_keras_head
from curate.scoring.scorers.make import make_scorers
from curate.scoring.scorers.published import PUBLISHED
from curate.scoring.settings import ScoreSettings

KERAS = {"laion-nsfw-l14": ("l_14", 768), "laion-nsfw-b32": ("b_32", 512)}
# Columns that AutoKeras took for categories, and the means of their places in the vocabulary.
CATEGORIES = {
    "laion-nsfw-l14": {180: 1188, 316: 328, 413: 362, 440: 371, 644: 388},
    "laion-nsfw-b32": {92: 227, 133: 132, 312: 133},
}


def local_file(real_data: Path, name: str) -> Path:
    file_name = PUBLISHED[name].file_name.replace("%2B", "+")
    found = list((real_data / "heads").rglob(file_name))
    if not found:
        pytest.skip(f"{file_name} is not on this machine")
    return found[0]


def ratings(real_data: Path, model: str) -> np.ndarray:
    folder = real_data / "heads" / "laion_aesthetic_predictor" / f"vit_{model}_embeddings"
    return np.concatenate([np.load(folder / f"rating{i}.npy").reshape(1, -1) for i in range(10)])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAPLAB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", [name for name, entry in PUBLISHED.items() if entry.sha256])
def test_the_registrys_hash_is_that_of_the_published_file(name: str, real_data: Path) -> None:
    assert sha256_file(local_file(real_data, name)) == PUBLISHED[name].sha256


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n.startswith("laion-aesthetic")])
def test_every_aesthetic_head_is_what_torch_computes(name: str, real_data: Path) -> None:
    import torch

    path = local_file(real_data, name)
    head = Head.load(find_head(str(path), [path.name]))
    vectors = ratings(real_data, "l_14" if head.width == 768 else "b_32")
    state = torch.load(path, map_location="cpu", weights_only=True)
    value = torch.from_numpy(vectors).double()
    for key in [key for key in state if key.endswith("weight")]:
        bias = state[key.replace("weight", "bias")].double()
        value = value @ state[key].double().T + bias
    assert head(vectors) == pytest.approx(value[:, 0].numpy(), abs=1e-4)
    assert len(head.weights) == 1


@pytest.mark.parametrize("name", KERAS)
def test_the_keras_nsfw_heads_are_read_with_their_categories(name: str, real_data: Path) -> None:
    model, width = KERAS[name]
    head = Head.load(find_head(str(local_file(real_data, name))))
    assert head.width == width
    assert head.output == "sigmoid"
    means = {c: round(float(head.preparation.mean[c])) for c in head.preparation.categories}
    assert means == CATEGORIES[name]
    scores = head(ratings(real_data, model))
    # Mean embeddings of harmless photographs, from ugly to beautiful.
    assert scores.max() < 0.01


@pytest.mark.parametrize("name", KERAS)
def test_a_known_category_counts_by_its_place_and_an_unknown_one_as_none(
    name: str, real_data: Path
) -> None:
    head = Head.load(find_head(str(local_file(real_data, name))))
    column, known = next(iter(head.preparation.categories.items()))
    vectors = np.repeat(ratings(real_data, KERAS[name][0])[:1], 3, axis=0)
    vectors[:, column] = [known[0], known[4], known.max() + 1]
    prepared = head.preparation(vectors.astype(np.float32))
    mean, scale = head.preparation.mean[column], head.preparation.scale[column]
    assert prepared[:, column] == pytest.approx((np.array([1, 5, 0]) - mean) / scale, abs=1e-5)


@pytest.mark.parametrize("name", KERAS)
def test_without_the_vocabulary_float16_embeddings_get_other_scores(
    name: str, real_data: Path
) -> None:
    head = Head.load(find_head(str(local_file(real_data, name))))
    preparation = head.preparation
    between = ["relu"] * (len(head.weights) - 1)
    port = Head(
        head.weights,
        head.biases,
        between,
        "sigmoid",
        Preparation(preparation.mean, preparation.scale),
    )
    random = np.random.default_rng(0)
    shape = (500, head.width)
    vectors = random.normal(preparation.mean, preparation.scale, shape).astype(np.float32)
    for column, known in preparation.categories.items():
        vectors[:, column] = random.choice(known, len(vectors))
    hit = np.abs(head(vectors) - port(vectors)).mean()
    off = vectors + np.float32(3.3e-5)  # off float16's grid, so in no vocabulary
    missed = np.abs(head(off) - port(off)).mean()
    assert missed < 0.005 < hit


def test_the_h14_head_has_no_activation_at_its_end_and_no_sigmoid(tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    widths = [1024, 1024, 2048, 1024, 256, 128]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.2)]
    network = nn.Sequential(*layers, nn.Linear(128, 16), nn.Linear(16, 1)).eval()
    state = {f"layers.{name}": tensor for name, tensor in network.state_dict().items()}
    path = tmp_path / "h14_nsfw.pth"
    torch.save(state, path)
    head = Head.load(find_head(str(path), ["h14_nsfw.pth"]))
    vectors = nn.functional.normalize(torch.randn(4, 1024), dim=1)
    with torch.inference_mode():
        expected = network(vectors)[:, 0].numpy()
    assert head(vectors.numpy()) == pytest.approx(expected, abs=1e-5)
    assert len(head.weights) == 6  # the last two are one, for nothing stands between them


def test_an_archive_of_something_else_is_one_sentence(tmp_path: Path) -> None:
    archive = tmp_path / "other.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("saved_model.pb", b"")
    with pytest.raises(ConfigError, match="not an AutoKeras SavedModel"):
        convert_keras_head(archive, tmp_path / "head.safetensors")
    archive.write_bytes(b"not a zip")
    with pytest.raises(ConfigError, match="not an AutoKeras SavedModel"):
        convert_keras_head(archive, tmp_path / "head.safetensors")
    assert not (tmp_path / "head.safetensors").exists()


def test_a_stack_that_does_not_say_its_activation_is_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.ones(1, 4)}, tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match="convert_head"):
        find_head(str(tmp_path / "mine.pth"), ["mine.pth"])


def test_a_published_head_on_another_published_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trained on ViT-L-14-quickgelu@openai.*@LABEL"):
        make_scorers(ScoreSettings(clip_model="ViT-B-32-quickgelu", nsfw_head="laion-nsfw-l14"))
    # The right one on the second model gets past that check, to where its weights are fetched.
    with pytest.raises(ConfigError, match="sha256 of laion-nsfw-h14"):
        make_scorers(
            ScoreSettings(
                more_clips={"h14": "ViT-H-14@laion2b_s32b_b79k"},
                more_heads={"nsfw_h14": "laion-nsfw-h14@h14"},
            )
        )
