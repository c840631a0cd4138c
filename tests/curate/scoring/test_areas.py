"""Shares of a picture's area: what a detector's own processor and post-processing find, drawn."""

import numpy as np
import pytest
import torch
from PIL import Image

from curate.base.errors import ConfigError
from curate.scoring.models.areas import Area, areas, corners
from curate.scoring.settings import ScoreSettings
from curate.scoring.stage import ScoreStage
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip

PICTURES = [drawn(n, 60 + 20 * (n // 2), 80) for n in range(6)]


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A tiny YOLOS that is sure of what it sees."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=[32, 32], patch_size=8, num_detection_tokens=4,
        id2label={0: "person", 1: "face"},
    )  # fmt: skip
    model = YolosForObjectDetection(config)
    with torch.no_grad():
        for layer, scale in ((model.class_labels_classifier, 50), (model.bbox_predictor, 3)):
            for weights in layer.parameters():
                weights.mul_(scale)
        model.class_labels_classifier.layers[-1].bias += torch.tensor([0.0, 10.0, 0.0])
    folder = tmp_path_factory.mktemp("yolos")
    model.save_pretrained(folder)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 64}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """PP-OCRv5's detector with random weights, for which everything is text."""
    from transformers import PPOCRV5MobileDetConfig, PPOCRV5MobileDetForObjectDetection
    from transformers.models.pp_ocrv5_server_det.image_processing_pp_ocrv5_server_det import (
        PPOCRV5ServerDetImageProcessor,
    )

    model = PPOCRV5MobileDetForObjectDetection(PPOCRV5MobileDetConfig())
    with torch.no_grad():
        model.head.conv_final.bias.fill_(9)
    folder = tmp_path_factory.mktemp("ocr")
    model.save_pretrained(folder)
    PPOCRV5ServerDetImageProcessor(limit_side_len=96).save_pretrained(folder)
    return str(folder)


def boxes_of(folder, picture):
    """What transformers finds of one picture: (labels, boxes)."""
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForObjectDetection.from_pretrained(folder).eval()
    inputs = processor(images=Image.fromarray(picture), return_tensors="pt")
    with torch.inference_mode():
        outputs = model(pixel_values=inputs.pixel_values)
    size = torch.tensor([picture.shape[:2]])
    (found,) = processor.post_process_object_detection(outputs, target_sizes=size)
    return found["labels"].tolist(), found["boxes"].numpy()


def test_faces_are_those_that_transformers_finds_alike_in_every_batch(faces, tmp_path):
    config, weights = tiny_clip(tmp_path / "clip")
    settings = {"clip_model": str(config), "clip_pretrained": str(weights), "device": "cpu"}
    settings |= {"face_area": f"{faces}@face"}
    files = [encoded(picture) for picture in PICTURES]
    scores = []
    for size in (7, 2):
        shard = [(file, "text") for file in [*files, b"broken"]]
        dataset = make_dataset(tmp_path / f"data{size}", [shard])
        ScoreStage(ScoreSettings(**settings, score_batch_size=size)).run(dataset, "00000")
        scores.append(dataset.read_table("scores", "00000"))
    together, apart = (table.column("face_area").to_pylist() for table in scores)
    assert together[-1] is None
    assert apart[:-1] == pytest.approx(together[:-1], abs=1e-6)
    expected = []
    for picture in PICTURES:
        mask = np.zeros(picture.shape[:2], bool)
        for label, box in zip(*boxes_of(faces, picture), strict=True):
            left, top, right, bottom = np.clip(np.round(box), 0, None).astype(int)
            if label == 1:
                mask[top:bottom, left:right] = True
        expected.append(mask.mean())
    assert together[:-1] == pytest.approx(expected, abs=0.03)
    assert 0.01 < max(expected) < 1, "there is nothing to compare"
    largest = scores[0].column("face_area_largest").to_pylist()[:-1]
    assert all(one <= every for one, every in zip(largest, together, strict=False))
    assert scores[0].column("face_area_error").to_pylist() == [None] * 7


def test_text_is_what_pp_ocr_finds(text):
    scorer = Area("text_area", text, largest=False, device="cpu")
    scorer.open()
    pictures = {"picture_text_area": PICTURES[:2], "pixel_sha256": ["a", None]}
    found = scorer.score(pictures)["text_area"]
    _, boxes = boxes_of(text, PICTURES[0])
    expected, _ = areas([corners(box) for box in boxes], PICTURES[0].shape[:2])
    assert found[0] == pytest.approx(expected)
    assert found[0] > 0.9
    assert np.isnan(found[1]), "a picture that did not decode has no text"


def test_boxes_that_overlap_count_once_and_what_is_outside_does_not():
    found = [np.array(box) for box in ((0, 0, 5, 10), (0, 0, 5, 5), (8, 0, 30, 10))]
    assert areas([corners(box) for box in found], (10, 10)) == pytest.approx((0.7, 0.5))
    triangle = np.array([(0, 0), (20, 0), (0, 20)])
    assert areas([triangle], (20, 20))[0] == pytest.approx(0.5, abs=0.03)
    beside = [(-9, 2, -4, 8), (2.2, 0, 2.4, 10), (4, 12, 8, 20), (np.nan, 0, 5, 5)]
    assert areas([corners(np.array(box)) for box in beside], (10, 10)) == (0, 0)
    assert areas([], (10, 10)) == (0, 0)


@pytest.mark.parametrize("angle", [0, 10, 30, 80])
def test_a_turned_box_has_its_area_and_what_of_it_is_outside_has_none(angle):
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    box = np.array([(-20, -5), (20, -5), (20, 5), (-20, 5)]) @ [[cosine, sine], [-sine, cosine]]
    inside, half, other_way = box + 50, box + np.array([0, 50]), box[::-1] + 50
    for one, area in ((inside, 400), (half, 200), (other_way, 400)):
        assert areas([one], (100, 100))[0] == pytest.approx(area / 10000, abs=0.0004)


def test_labels_and_models_that_are_not_there_are_refused(faces, tmp_path):
    with pytest.raises(ConfigError, match="no label 'fase'; did you mean 'face'"):
        Area("face_area", f"{faces}@fase", largest=True)
    with pytest.raises(ConfigError, match=r"Say which labels .* person, face"):
        Area("face_area", faces, largest=True)
    with pytest.raises(ConfigError, match="no object detector of transformers"):
        Area("text_area", str(tmp_path), largest=False)
