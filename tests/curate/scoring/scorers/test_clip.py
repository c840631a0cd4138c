import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.base.errors import ConfigError
from curate.scoring.scorers.clip import Clip, ClipModel
from tests.curate.tiny import CLIP_CONFIG, drawn, tiny_clip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    return str(config), str(weights)


def pictures(count: int) -> np.ndarray:
    return np.stack([drawn(i, 32, 32) for i in range(count)])


def test_embeddings_are_those_of_open_clip(files: tuple[str, str]) -> None:
    import open_clip
    import torch
    from open_clip.transform import image_transform
    from safetensors.torch import load_file

    model = open_clip.CLIP(**json.loads(Path(files[0]).read_text())).eval()
    model.load_state_dict(load_file(files[1]))
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    transform = image_transform(32, is_train=False, **statistics)
    texts = ["a red fox", "two cats on a mat"]
    tokens = open_clip.SimpleTokenizer(context_length=12)(texts)
    with torch.inference_mode():
        images = torch.stack([transform(Image.fromarray(p)) for p in pictures(2)])
        image = model.encode_image(images, normalize=True).numpy()
        text = model.encode_text(tokens, normalize=True).numpy()

    scores = Clip(*files).score({"picture": pictures(2), "alt_text": texts})
    assert scores["image_embedding"] == pytest.approx(image, abs=5e-4)
    assert scores["text_embedding"] == pytest.approx(text, abs=5e-4)
    assert scores["clip_similarity"] == pytest.approx((image * text).sum(axis=1), abs=5e-4)


def test_leaving_out_the_padding_changes_no_text_embedding(files: tuple[str, str]) -> None:
    import torch

    clip = ClipModel.load(*files)
    texts = ["a", "two cats on a mat", "many more words than the twelve tokens of this context"]
    tokens = clip._tokenize(texts)
    with torch.inference_mode():
        whole = clip.model.encode_text(tokens, normalize=True).numpy()
    assert clip.embed_texts(texts) == pytest.approx(whole, abs=5e-4)
    assert clip.embed_texts(texts[:1]) == pytest.approx(whole[:1], abs=5e-4)


def test_an_empty_text_has_no_similarity(files: tuple[str, str]) -> None:
    texts = ["a fox", "", None, "  "]
    scores = Clip(*files).score({"picture": pictures(4), "alt_text": texts})
    assert np.isnan(scores["clip_similarity"]).tolist() == [False, True, True, True]
    assert np.isnan(scores["text_embedding"][1]).all()
    assert np.isfinite(scores["image_embedding"]).all()


def test_scores_rest_on_what_is_stored(files: tuple[str, str]) -> None:
    scores = Clip(*files).score({"picture": pictures(3), "alt_text": ["a", "b", "c"]})
    stored = [scores[name].astype(np.float16) for name in ("image_embedding", "text_embedding")]
    again = np.einsum("bd,bd->b", *(vectors.astype(np.float32) for vectors in stored))
    assert np.array_equal(scores["clip_similarity"], again)


def test_rows_do_not_depend_on_their_batch(files: tuple[str, str]) -> None:
    clip = ClipModel.load(*files)
    together = clip.embed_pictures(pictures(5))
    alone = np.concatenate([clip.embed_pictures(pictures(5)[i : i + 1]) for i in range(5)])
    assert together == pytest.approx(alone, abs=1e-3)


def test_pictures_of_another_size_are_resized_as_the_model_wants(files: tuple[str, str]) -> None:
    clip = ClipModel.load(*files)
    big = np.stack([drawn(i, 64, 48) for i in range(2)])
    assert clip.embed_pictures(big).shape == (2, 16)


def test_bf16_is_close_to_fp32(files: tuple[str, str]) -> None:
    columns = {"picture": pictures(4), "alt_text": ["a", "b", "c", "d"]}
    full = Clip(*files).score(columns)
    half = Clip(*files, precision="bf16").score(columns)
    cosine = (full["image_embedding"] * half["image_embedding"]).sum(axis=1)
    assert cosine.min() > 0.999


def test_a_folder_in_open_clips_layout_gives_the_same_embeddings(
    files: tuple[str, str], tmp_path: Path
) -> None:
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").write_bytes(Path(files[1]).read_bytes())
    (tmp_path / "whole.json").write_text(json.dumps(config))
    folder = ClipModel.load(f"local-dir:{tmp_path}")
    single = ClipModel.load(str(tmp_path / "whole.json"), files[1])
    assert folder.view.resample == single.view.resample == "bilinear"
    assert np.array_equal(folder.embed_pictures(pictures(2)), single.embed_pictures(pictures(2)))


def test_the_signature_follows_the_weights(files: tuple[str, str], tmp_path: Path) -> None:
    _, other = tiny_clip(tmp_path, seed=1)
    assert Clip(*files).signature() == Clip(*files).signature()
    assert Clip(*files).signature() != Clip(files[0], str(other)).signature()


def test_a_loaded_scorer_travels_without_its_model(files: tuple[str, str]) -> None:
    clip = Clip(*files)
    clip.open()
    assert len(pickle.dumps(clip)) < 10_000


@pytest.mark.parametrize(
    ("model", "pretrained", "words"),
    [
        ("ViT-B-32", None, "needs weights"),
        ("ViT-B-23", "openai", "did you mean 'ViT-B-32'"),
        ("ViT-B-32", "openay", "did you mean 'openai'"),
        ("ViT-L-14", "openai", "--clip-model ViT-L-14-quickgelu"),
        ("ViT-B-32", "weights.pt", "pickle"),
        ("ViT-B-32", "none.safetensors", "do not exist"),
        ("none.json", "openai", "does not exist"),
        ("local-dir:/nowhere", None, "open_clip_config.json"),
        ("hf-hub:org/name", "openai", "brings its own weights"),
    ],
)
def test_a_wrong_model_is_refused_before_any_work(
    model: str, pretrained: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Clip(model, pretrained)


def test_weights_of_another_model_are_refused_in_one_sentence(
    files: tuple[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**CLIP_CONFIG, "embed_dim": 24}))
    with pytest.raises(ConfigError, match="does not load"):
        Clip(str(other), files[1]).open()
