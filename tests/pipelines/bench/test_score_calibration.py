"""Scores against the world's truth: figures that are known beforehand, and a model's road."""

import pytest
import torch

from curate.scoring.settings import ScoreSettings
from pipelines.bench.score.calibration import calibration_figures, under_curve


def test_the_area_under_the_curve_counts_ties_half():
    assert under_curve([2, 3], [0, 1]) == 1
    assert under_curve([1, 1], [1]) == 0.5
    assert under_curve([0, 2], [1, float("nan")]) == 0.5


def test_files_pdq_and_a_classifier_are_set_against_what_was_planted(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8, id2label={0: "plain", 1: "marked"},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    settings = ScoreSettings(classifier={"mark": f"{tmp_path}@marked"}, device="cpu")
    figures = {
        figure.name.removeprefix("calibration/"): figure.value
        for figure in calibration_figures(24, settings)
    }
    assert figures["jpeg_quality/saved_once/exact"] == 1
    assert figures["jpeg_quality/saved_after_40_to_60/furthest"] == 0
    assert figures["bytes_per_pixel/saved_once/auc_of_50_against_85"] > 0.8
    assert figures["pdq/found/reencode"] == 1
    assert figures["pdq/found/pictures_not_listed"] == 0
    assert (figures["pdq/found/mirror"], figures["pdq/found_turned/mirror"]) == (0, 1)
    assert 0 <= figures["mark/sticker/auc"] <= 1
    assert figures["mark/plain/median"] == pytest.approx(figures["mark/text/median"], abs=0.2)
