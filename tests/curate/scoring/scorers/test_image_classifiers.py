"""Any image classifier of transformers as a score: as its own processor and model say, by label."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from curate.base.errors import ConfigError
from curate.pictures.decode import decode_batch
from curate.scoring.models.source import label_indices, split_labels
from curate.scoring.scorers.classifier import ImageClassifier
from curate.scoring.scorers.make import make_scorers
from curate.scoring.settings import ScoreSettings
from tests.curate.tiny import drawn, encoded, tiny_clip

LABELS = {0: "photo", 1: "drawing", 2: "3d render"}
FILES = [(str(n), encoded(drawn(n, 80 + 20 * n, 96))) for n in range(4)]


def saved(folder, model, processor):
    model.eval().save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def mobilevit(tmp_path):
    """Channels turned round, no normalisation: a preparation that only its own processor knows."""
    from transformers import MobileViTConfig, MobileViTForImageClassification
    from transformers import MobileViTImageProcessor as Processor

    torch.manual_seed(0)
    config = MobileViTConfig(
        image_size=32, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[4, 4, 4, 8, 8, 8, 16],
        num_attention_heads=2, id2label=LABELS,
    )  # fmt: skip
    processor = Processor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    return saved(tmp_path / "mobilevit", MobileViTForImageClassification(config), processor)


@pytest.fixture
def timm_model(tmp_path):
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    torch.manual_seed(0)
    config = TimmWrapperConfig(architecture="test_vit2", num_labels=3, id2label=LABELS)
    folder = saved(tmp_path / "timm", TimmWrapperForImageClassification(config), None)
    path = tmp_path / "timm" / "config.json"
    told = json.loads(path.read_text())
    told |= {"pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 0.9}}
    path.write_text(json.dumps(told))
    return folder


@pytest.fixture
def vit(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8, id2label=LABELS,
    )  # fmt: skip
    size = {"height": 32, "width": 32}
    return saved(tmp_path / "vit", ViTForImageClassification(config), ViTImageProcessor(size=size))


def scored(scorer, files):
    scorer.open()
    (name, view), *_ = scorer.views().items()
    batch = decode_batch(files, view)
    return scorer.score({name: batch.picture, "pixel_sha256": batch.pixel_sha256})[scorer.name]


def logits_of(folder):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    pictures = [Image.fromarray(drawn(n, 80 + 20 * n, 96)) for n in range(4)]
    with torch.inference_mode():
        return model(**processor(images=pictures, return_tensors="pt")).logits


@pytest.mark.parametrize("model", ["vit", "mobilevit", "timm_model"])
def test_a_score_is_what_the_models_own_processor_and_softmax_give(model, request):
    folder = request.getfixturevalue(model)
    scorer = ImageClassifier("drawn", folder, "drawing+3D render", draft=False)
    together = scored(scorer, FILES)
    expected = logits_of(folder).softmax(-1)[:, 1:].sum(-1).numpy()
    assert together == pytest.approx(expected, abs=2e-3 if model == "vit" else 1e-5)
    alone = np.concatenate([scored(scorer, [file]) for file in FILES])
    assert alone == pytest.approx(together, abs=1e-6)


LARGE = [(str(n), encoded(drawn(n, 500 + 40 * n, 400))) for n in range(3)]
CONVNEXT = {
    "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.2], "resample": 3,
    "feature_extractor_type": "ConvNextFeatureExtractor",
}  # fmt: skip


@pytest.mark.parametrize("side", [224, 384])
def test_the_preparation_is_that_of_its_class_where_the_config_is_short(vit, side):
    """ConvNeXT's first configs say size 224: the shorter side; and from 384 on it squashes."""
    from transformers import AutoImageProcessor

    Path(vit, "preprocessor_config.json").write_text(json.dumps({**CONVNEXT, "size": side}))
    scorer = ImageClassifier("drawn", vit, "drawing", draft=False)
    ((_, view),) = scorer.views().items()
    assert not view.whole, "it shares the decode's resizing"
    pixels = scorer.prepared(decode_batch(LARGE, view).picture, torch.device("cpu"))
    pictures = [Image.fromarray(drawn(n, 500 + 40 * n, 400)) for n in range(3)]
    wanted = AutoImageProcessor.from_pretrained(vit)(pictures, return_tensors="pt").pixel_values
    assert pixels.shape == wanted.shape
    assert float((pixels - wanted).abs().mean()) < 0.02


def test_a_picture_of_another_shape_has_its_own_pass_and_a_refused_one_a_reason(vit):
    """Unpadded pictures, and models that are told their shapes (SigLIP 2's NaFlex)."""
    from transformers import Siglip2Config, Siglip2ForImageClassification, Siglip2ImageProcessor

    side = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    side["intermediate_size"] = 16
    config = Siglip2Config(
        vision_config={**side, "num_patches": 16, "patch_size": 8},
        text_config={**side, "vocab_size": 10}, id2label=LABELS,
    )  # fmt: skip
    torch.manual_seed(0)
    for path in Path(vit).iterdir():
        path.unlink()
    processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    saved(Path(vit), Siglip2ForImageClassification(config), processor)
    scorer = ImageClassifier("drawn", vit, "drawing", draft=False)
    found = scored(scorer, [*FILES, ("broken", b"no picture")])
    with torch.inference_mode():
        alone = [
            scorer.model(
                **processor(Image.fromarray(drawn(n, 80 + 20 * n, 96)), return_tensors="pt")
            )
            for n in range(4)
        ]
    assert found[:4] == pytest.approx([float(one.logits.softmax(-1)[0, 1]) for one in alone])
    assert np.isnan(found[4])
    scorer.processor = lambda images, **_: processor(images, **_) if images.width > 90 else 1 / 0
    batch = {"picture_drawn": [drawn(0, 80, 96), drawn(1, 100, 96)], "pixel_sha256": ["a", "b"]}
    errors = scorer.score(batch)["drawn_error"].to_pylist()
    assert "division" in errors[0]
    assert errors[1] is None


def test_a_model_of_several_labels_a_picture_has_a_sigmoid_for_each(vit):
    path = Path(vit) / "config.json"
    told = json.loads(path.read_text()) | {"problem_type": "multi_label_classification"}
    softmax = ImageClassifier("drawn", vit, "drawing+photo").signature()
    path.write_text(json.dumps(told))
    scorer = ImageClassifier("drawn", vit, "drawing+photo", draft=False)
    expected = logits_of(vit).sigmoid()[:, :2].amax(1).numpy()
    assert scored(scorer, FILES) == pytest.approx(expected, abs=2e-3)
    assert scorer.signature() != softmax


def test_settings_name_models_and_labels_and_mistakes_are_told_before_work(vit, tmp_path):
    config, weights = tiny_clip(tmp_path / "clip")

    def made(**classifier):
        settings = ScoreSettings(
            clip_model=str(config), clip_pretrained=str(weights), classifier=classifier
        )
        return {scorer.name: scorer for scorer in make_scorers(settings)}

    scorers = made(photo=f"{vit}@photo", drawn=f"{vit}@drawing+3d render")
    assert (scorers["photo"].indices, scorers["drawn"].indices) == ([0], [1, 2])
    with pytest.raises(ConfigError, match="no label 'drawin'; did you mean 'drawing'"):
        made(drawn=f"{vit}@photo+drawin")
    with pytest.raises(ConfigError, match=r"Say which labels .* photo, drawing, 3d render"):
        made(drawn=vit)
    with pytest.raises(ConfigError, match="'width' is the name of a column"):
        made(width=f"{vit}@photo")


def test_a_revision_stands_before_the_label():
    assert split_labels("hf-hub:a/b@good") == ("hf-hub:a/b", "good")
    assert split_labels("hf-hub:a/b@main@good+bad") == ("hf-hub:a/b@main", "good+bad")
    for wrong in ("hf-hub:a/b@x@y@z", "hf-hub:a/b@", "hf-hub:a/b@@good"):
        with pytest.raises(ConfigError, match="hf-hub:ORG/NAME@REVISION@LABEL"):
            split_labels(wrong)
    with pytest.raises(ConfigError, match="a revision stands before the label"):
        label_indices("hf-hub:a/b", {0: "good"}, "main")


def test_what_can_be_read_in_two_ways_is_refused(tmp_path):
    (tmp_path / "model@photo").mkdir()
    (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match="rename one of them"):
        split_labels(f"{tmp_path}/model@photo")
    (tmp_path / "me@home").mkdir()
    assert split_labels(f"{tmp_path}/me@home@a@b") == (f"{tmp_path}/me@home", "a@b")
    known = {0: "sea", 1: "sand", 2: "sea+sand", 3: "crane", 4: "Crane", 5: "c++"}
    with pytest.raises(ConfigError, match="and those that"):
        label_indices("m", known, "sea+sand")
    with pytest.raises(ConfigError, match="calls 2 classes 'crane'"):
        label_indices("m", known, "crane")
    assert label_indices("m", known, "C++") == [5]
