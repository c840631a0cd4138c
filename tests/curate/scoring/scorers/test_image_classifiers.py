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
    return scorer.score({name: decode_batch(files, view).picture})[scorer.name]


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
    known = {0: "sea", 1: "sand", 2: "sea+sand", 3: "crane", 4: "Crane", 5: "c++"}
    with pytest.raises(ConfigError, match="and those that"):
        label_indices("m", known, "sea+sand")
    with pytest.raises(ConfigError, match="calls 2 classes 'crane'"):
        label_indices("m", known, "crane")
    assert label_indices("m", known, "C++") == [5]
