"""Detectors against their own forward pass; the judge over a tiny one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from curate.base.errors import ConfigError
from pipelines.judges.detection.detectors import open_detector
from pipelines.judges.detection.rules import COLOURS, Detections
from pipelines.judges.detector import Colours, DetectorJudge, DetectorOptions, crop_of
from tests.curate.tiny import tiny_clip
from tests.pipelines.judges import tiny_detectors
from tests.pipelines.judges.asked_rows import asked, pictures

SIDES = np.array([64, 48, 64, 48])


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(pictures(1, 64)[0][:48])


def corners(boxes: torch.Tensor, sides: np.ndarray) -> np.ndarray:
    """Centre and size in shares of the sides -> corners in pixels inside of the picture."""
    centre, half = boxes[:, :2].double().numpy(), boxes[:, 2:].double().numpy() / 2
    found = np.concatenate([centre - half, centre + half], axis=1) * sides
    return found.clip(0, np.array([64, 48, 64, 48]))


def test_detr_gives_its_surest_class_and_box_of_each_query(tmp_path, picture):
    detector = open_detector(tiny_detectors.build_detr(tmp_path / "detr"), "cpu")
    found = detector.detect(picture, ["dog", "computer mouse"], 0.0)
    with torch.inference_mode():
        inputs = detector.processor(images=picture, return_tensors="pt")
        outputs = detector.model(**inputs)
    scores, labels = outputs.logits[0].softmax(-1)[:, :-1].max(-1)
    assert found.scores == pytest.approx(scores.numpy(), abs=1e-3)
    assert found.boxes == pytest.approx(corners(outputs.pred_boxes[0], SIDES), abs=1e-3)
    assert list(found.labels) == [["dog", "computer mouse", "cup"][n] for n in labels.tolist()]
    with pytest.raises(ConfigError, match="knows no 'zebra'"):
        detector.detect(picture, ["zebra"], 0.0)


def test_owlv2_gives_each_box_to_the_name_that_it_fits_best(tmp_path, picture):
    detector = open_detector(tiny_detectors.build_owlv2(tmp_path / "owl"), "cpu")
    found = detector.detect(picture, ["dog", "cup"], 0.0)
    texts = [["a photo of a dog", "a photo of a cup"]]
    with torch.inference_mode():
        outputs = detector.model(
            **detector.processor(images=picture, text=texts, return_tensors="pt")
        )
    likeness, labels = outputs.logits[0].max(-1)
    assert likeness.abs().max() < 50, "the scores are 0 or 1 in float32"
    assert found.scores == pytest.approx(likeness.sigmoid().numpy(), abs=1e-3)
    # OWLv2 pads the picture to a square of its longer side.
    boxes = corners(outputs.pred_boxes[0], np.full(4, 64))
    assert found.boxes == pytest.approx(boxes, abs=1e-3)
    assert list(found.labels) == [["dog", "cup"][n] for n in labels.tolist()]


def test_grounding_dino_is_asked_for_one_class_at_a_time(tmp_path, picture):
    detector = open_detector(tiny_detectors.build_grounding_dino(tmp_path / "dino"), "cpu")
    found = detector.detect(picture, ["dog", "cup"], 0.0)
    assert list(found.labels) == ["dog"] * 8 + ["cup"] * 8
    with torch.inference_mode():
        outputs = detector.model(
            **detector.processor(images=picture, text="cup.", return_tensors="pt")
        )
    scores = outputs.logits[0].sigmoid().max(-1).values
    assert found.scores[8:] == pytest.approx(scores.numpy(), abs=1e-3)
    assert found.boxes[8:] == pytest.approx(corners(outputs.pred_boxes[0], SIDES), abs=1e-3)


def test_mask2former_s_boxes_lie_around_its_masks(tmp_path, picture):
    detector = open_detector(tiny_detectors.build_mask2former(tmp_path / "mask"), "cpu")
    found = detector.detect(picture, ["dog"], 0.0)
    assert len(found.scores)
    assert found.masks is not None
    for mask, (left, top, right, bottom) in zip(found.masks, found.boxes.astype(int), strict=True):
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min()) == (left, top)
        assert (columns.max() + 1, rows.max() + 1) == (right, bottom)
    assert len(detector.detect(picture, ["dog"], 1.0).scores) == 0


def test_a_model_that_is_no_detector_is_refused(tmp_path):
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is a bert, which is no detector"):
        open_detector(tmp_path, "cpu")


def test_the_judge_answers_records_and_leaves_other_prompts_alone(tmp_path):
    config, weights = tiny_clip(tmp_path / "clip")
    options = DetectorOptions(
        model=str(tiny_detectors.build_detr(tmp_path / "detr")),
        threshold=0.01,
        colour_model=str(config),
        colour_pretrained=str(weights),
    )
    judge = DetectorJudge(options, "cpu")
    shown = np.repeat(pictures(1, 64), 4, axis=0)
    seen = judge.detector.detect(Image.fromarray(shown[0]), ["dog"], 0.01)
    surest = int(seen.scores.argmax())
    name = seen.labels[surest]
    colour = Colours(judge._clip.model).of(shown[0], seen, [surest], name)[0]
    one = {"class": name, "count": 1}
    any_dog = {"tag": "single_object", "include": [one]}
    dogs = {"tag": "single_object", "include": [{"class": name, "count": 9}]}
    red = {"tag": "colors", "include": [{**one, "color": colour}]}
    rows = asked(["a", "b", "c", "d"], [any_dog, dogs, red, "a text"])
    scores = judge.score(shown, rows)["geneval"]
    assert scores[:3].tolist() == [1, 0, 1]
    assert np.isnan(scores[3])
    with pytest.raises(ConfigError, match="GenEval record"):
        judge.score(shown[:1], asked(["a"], [{"tag": "colors", "include": [{"class": "dog"}]}]))


def test_colours_are_open_clip_s_zero_shot_classes_on_the_crop(tmp_path):
    import open_clip

    from curate.scoring.scorers.clip import ClipModel

    config, weights = tiny_clip(tmp_path)
    model = ClipModel.load(str(config), str(weights), device="cpu")
    picture = pictures(1, 64)[0]
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 10:42, 10:42], masks[1, :32, :32] = True, True
    boxes = np.array([(10, 10, 42, 42), (0, 0, 32, 32)], float)
    seen = Detections(["dog"] * 2, np.ones(2), boxes, masks)
    forms = ["a photo of a {} dog", "a photo of a {}-colored dog", "a photo of a {} object"]
    classifier = open_clip.build_zero_shot_classifier(model.model, model._tokenize, COLOURS, forms)
    crops = np.stack([picture[10:42, 10:42], picture[:32, :32]])
    likeness = model.embed_pictures(crops) @ classifier.numpy()
    expected = [COLOURS[n] for n in likeness.argmax(1)]
    assert Colours(model).of(picture, seen, [0, 1], "dog") == expected
    masks[0, 20, 20] = False
    assert crop_of(picture, seen, 0)[10, 10].tolist() == [0x99] * 3
