"""Weights from a hub and from URLs: a real server, real files, and nothing half-written."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import ConfigError
from curate.base.weight_download import parse_hub, split_hash
from curate.scoring.scorers import published
from curate.scoring.scorers.classifier import ImageClassifier, LaionWatermark, watermark_network
from curate.scoring.scorers.clip import ClipModel
from curate.scoring.scorers.head_source import find_head
from curate.scoring.scorers.heads import Head
from curate.scoring.stage import ScoreSettings, ScoreStage
from tests.curate.hub_server import COMMIT, hub_server
from tests.curate.tiny import CLIP_CONFIG, drawn, encoded, make_dataset, tiny_clip, tiny_head


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server serves: a CLIP model, a classifier, a detector and heads."""
    import torch
    from safetensors.torch import save_file
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    root = tmp_path_factory.mktemp("hub")
    clip = root / "lab" / "tiny-clip"
    _, weights = tiny_clip(clip)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": preprocess}
    (clip / "open_clip_config.json").write_text(json.dumps(config))
    weights.rename(clip / "open_clip_model.safetensors")

    torch.manual_seed(0)
    labels = {0: "normal", 1: "nsfw", 2: "gore"}
    vit = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )
    folder = root / "lab" / "tiny-vit"
    ViTForImageClassification(vit).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)

    pickled = root / "lab" / "only-pickle"
    pickled.mkdir()
    torch.save({}, pickled / "open_clip_pytorch_model.bin")
    (pickled / "open_clip_config.json").write_text(json.dumps(config))

    files = root / "files"
    files.mkdir()
    (root / "lab" / "heads").mkdir()
    tiny_head(root / "lab" / "heads" / "head.safetensors")
    tiny_head(files / "head.safetensors")
    torch.save({"weight": torch.ones(1, 16), "bias": torch.ones(1)}, files / "plain.pth")
    (files / "broken.pth").write_bytes(b"no tensors in here")
    network = watermark_network().eval()
    torch.save(network.state_dict(), files / "watermark_model_v1.pt")
    save_file(network.state_dict(), root / "lab" / "heads" / "watermark.safetensors")
    return root


@pytest.fixture
def hub(
    repositories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, list[str]]]:
    """The server as HF_ENDPOINT, with empty caches; tests of captioners turn the hub off."""
    from huggingface_hub import constants

    with hub_server(repositories) as (url, asked):
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("CAPLAB_CACHE", str(tmp_path / "cache"))
        yield url, asked


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_clip_model_comes_from_the_hub_once(hub, repositories: Path) -> None:
    _, asked = hub
    model = ClipModel.load("hf-hub:lab/tiny-clip")
    folder = repositories / "lab" / "tiny-clip"
    local = ClipModel.load(f"local-dir:{folder}")
    pictures = np.stack([drawn(i, 32, 32) for i in range(2)])
    assert np.array_equal(model.embed_pictures(pictures), local.embed_pictures(pictures))
    assert np.array_equal(model.embed_texts(["a fox"]), local.embed_texts(["a fox"]))
    fetched = [path for path in asked if path.endswith("open_clip_model.safetensors")]
    assert (
        fetched.count("GET /lab/tiny-clip/resolve/" + COMMIT + "/open_clip_model.safetensors") == 1
    )


def test_a_revision_is_asked_for_by_name(hub) -> None:
    assert ClipModel.load(f"hf-hub:lab/tiny-clip@{COMMIT}").width == 16
    with pytest.raises(ConfigError, match=r"^lab/tiny-clip on the hub has no revision 'v9'\.$"):
        ClipModel.load("hf-hub:lab/tiny-clip@v9")


def test_what_the_hub_does_not_have_is_one_sentence(hub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no repository 'lab/none'"):
        ClipModel.load("hf-hub:lab/none")
    with pytest.raises(ConfigError, match="no such file"):
        find_head("hf-hub:lab/heads/none.safetensors")
    with pytest.raises(ConfigError, match="no revision 'v9'"):
        find_head("hf-hub:lab/heads@v9/head.safetensors")
    assert left_in(tmp_path / "cache") == []


def test_a_clip_model_that_is_only_a_pickle_is_refused_unfetched(hub) -> None:
    _, asked = hub
    with pytest.raises(ConfigError, match=r"no open_clip_model\.safetensors"):
        ClipModel.load("hf-hub:lab/only-pickle")
    assert not [path for path in asked if path.endswith(".bin")]


def test_a_head_comes_from_the_hub_at_a_revision(hub, repositories: Path) -> None:
    here = Head.load(repositories / "lab" / "heads" / "head.safetensors")
    vectors = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    for source in (
        "hf-hub:lab/heads/head.safetensors",
        f"hf-hub:lab/heads@{COMMIT}/head.safetensors",
    ):
        assert np.array_equal(Head.load(find_head(source))(vectors), here(vectors))


def test_a_url_needs_its_hash_and_is_fetched_once(hub, repositories: Path) -> None:
    url, asked = hub
    source = f"{url}/files/head.safetensors"
    with pytest.raises(ConfigError, match=r"needs the hash.*#sha256=HEX"):
        find_head(source)
    assert asked == []
    digest = sha256(repositories / "files" / "head.safetensors")
    first = find_head(f"{source}#sha256={digest}")
    assert find_head(f"{source}#sha256={digest}") == first
    assert sha256(first) == digest
    assert len(asked) == 1


def test_a_wrong_hash_leaves_nothing_behind(hub, tmp_path: Path) -> None:
    url, _ = hub
    with pytest.raises(
        ConfigError, match=r"not the expected file: its sha256 is [0-9a-f]{64}, not 0{64}"
    ):
        find_head(f"{url}/files/head.safetensors#sha256={'0' * 64}")
    with pytest.raises(ConfigError, match="is no sha256"):
        find_head(f"{url}/files/head.safetensors#sha256=12")
    with pytest.raises(ConfigError, match="HTTP 404"):
        find_head(f"{url}/files/none.safetensors#sha256={'0' * 64}")
    assert left_in(tmp_path / "cache") == []


def published_head(monkeypatch, url: str, file: Path, digest: str | None = None) -> None:
    """A published name for a file of the local server."""
    entry = published.Published(
        f"{url}/files/{file.name}", digest or sha256(file), "linear", "", "aesthetic > 5"
    )
    monkeypatch.setitem(published.PUBLISHED, "lab-plain", entry)  # type: ignore[arg-type]


def test_a_published_pickle_is_converted_once_and_only_by_name(
    hub, repositories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = hub
    file = repositories / "files" / "plain.pth"
    published_head(monkeypatch, url, file)
    with pytest.raises(ConfigError, match=r"plain.pth .*is a pickle.*--allow-pickle plain.pth"):
        find_head("lab-plain")
    with pytest.raises(ConfigError, match="is a pickle"):
        find_head("lab-plain", ["another.pth"])
    assert left_in(tmp_path / "cache") == []
    head = Head.load(find_head("lab-plain", ["plain.pth"]))
    assert head(np.full((1, 16), 0.5, np.float32)).tolist() == [9]
    before = len(asked)
    # Converted is converted: no pickle is left to trust.
    assert find_head("lab-plain").suffix == ".safetensors"
    assert len(asked) == before


@pytest.mark.parametrize("leave", ["sha256", "lab-plain"])
def test_a_pickle_can_be_named_by_its_hash_or_its_published_name(
    hub, repositories: Path, monkeypatch: pytest.MonkeyPatch, leave: str
) -> None:
    file = repositories / "files" / "plain.pth"
    published_head(monkeypatch, hub[0], file)
    named = sha256(file) if leave == "sha256" else leave
    assert find_head("lab-plain", [named]).is_file()


def test_a_pickle_that_holds_no_tensors_is_one_sentence_and_no_file(
    hub, repositories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_head(monkeypatch, hub[0], repositories / "files" / "broken.pth")
    with pytest.raises(ConfigError, match="does not load as plain tensors"):
        find_head("lab-plain", ["broken.pth"])
    assert left_in(tmp_path / "cache") == []


def test_published_names_are_checked_and_hashes_are_never_invented(hub) -> None:
    with pytest.raises(ConfigError, match="did you mean 'laion-nsfw-l14'"):
        find_head("laion-nsfw-l41")
    with pytest.raises(ConfigError, match=r"laion-nsfw-h14#sha256=HEX"):
        find_head("laion-nsfw-h14")
    with pytest.raises(ConfigError, match="--watermark-model"):
        find_head("laion-watermark")


def test_a_classifier_of_transformers_comes_from_the_hub(hub, repositories: Path) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = repositories / "lab" / "tiny-vit"
    scorer = ImageClassifier("nsfw_classifier", f"hf-hub:lab/tiny-vit@{COMMIT}", ["NSFW", "gore"])
    pictures = np.stack([drawn(i, 32, 32) for i in range(3)])
    score = scorer.score({"picture_nsfw_classifier": pictures})["nsfw_classifier"]
    inputs = AutoImageProcessor.from_pretrained(folder)(list(pictures), return_tensors="pt")
    with torch.inference_mode():
        logits = AutoModelForImageClassification.from_pretrained(folder)(**inputs).logits
    assert score == pytest.approx(logits.softmax(-1)[:, 1:].sum(-1).numpy(), abs=1e-5)


def test_a_label_that_the_classifier_does_not_have_is_refused(hub, repositories: Path) -> None:
    folder = repositories / "lab" / "tiny-vit"
    with pytest.raises(ConfigError, match=r"no label 'nfsw'; did you mean 'nsfw'"):
        ImageClassifier("nsfw_classifier", str(folder), ["nfsw"])
    with pytest.raises(ConfigError, match="no image classifier"):
        ImageClassifier("nsfw_classifier", str(repositories / "files"), ["nsfw"])


def test_laions_watermark_detector_is_its_architecture_with_softmax_of_index_0(
    hub, repositories: Path
) -> None:
    import torch
    from torchvision.transforms import functional as F

    url, _ = hub
    file = repositories / "files" / "watermark_model_v1.pt"
    source = f"{url}/files/{file.name}#sha256={sha256(file)}"
    with pytest.raises(ConfigError, match=r"--allow-pickle watermark_model_v1\.pt"):
        LaionWatermark(source)
    scorer = LaionWatermark(source, allow_pickle=["watermark_model_v1.pt"])
    scorer.open()
    picture = drawn(1, 256, 256)
    network = watermark_network().eval()
    network.load_state_dict(torch.load(file, weights_only=True))
    pixels = F.normalize(F.to_tensor(picture), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = network(pixels[None]).softmax(-1)[0, 0].item()
    score = scorer.score({"picture_watermark": picture[None]})["watermark"]
    assert score == pytest.approx([expected], abs=1e-4)


def test_everything_from_the_hub_scores_one_dataset(hub, tmp_path: Path) -> None:
    settings = ScoreSettings(
        clip_model=f"hf-hub:lab/tiny-clip@{COMMIT}",
        clip_pretrained=None,
        more_clips={"again": "hf-hub:lab/tiny-clip"},
        aesthetic_head="hf-hub:lab/heads/head.safetensors",
        nsfw_classifier="hf-hub:lab/tiny-vit",
        watermark_model="hf-hub:lab/tiny-vit",
        watermark_labels=("gore",),
    )
    samples = [(encoded(drawn(0)), "a fox"), (b"broken", "x")]
    dataset = make_dataset(tmp_path / "d", [samples], failed=0)
    stage = ScoreStage(settings)
    stage.open()
    stage.run(dataset, "00000")
    good, bad = dataset.read_table("scores", "00000").to_pylist()
    for column in ("clip_similarity", "aesthetic", "nsfw_classifier", "watermark"):
        assert good[column] is not None
        assert bad[column] is None
    assert good["clip_similarity_again"] == good["clip_similarity"]
    assert 0 < good["nsfw_classifier"] < 1
    assert "nsfw_classifier/model.safetensors" in stage.weights()


def test_sources_are_read_as_documented() -> None:
    assert parse_hub("hf-hub:a/b") == ("a/b", None, "")
    assert parse_hub("hf-hub:a/b@v1/c/d.safetensors") == ("a/b", "v1", "c/d.safetensors")
    assert split_hash("x") == ("x", None)
    assert split_hash(f"x#sha256={'AB' * 32}") == ("x", "ab" * 32)
    with pytest.raises(ConfigError, match="no hub id"):
        parse_hub("hf-hub:a")
