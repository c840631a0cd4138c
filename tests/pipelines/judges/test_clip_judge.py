"""The CLIP judge against open_clip called directly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.judges.clip import ClipJudge, ClipOptions
from pipelines.judges.protocol import Judge
from pipelines.judges.registry import judge_class
from tests.curate.tiny import tiny_clip
from tests.pipelines.judges.asked_rows import asked, pictures

LONG = "A red fox sits on a mat. Two grey cats sleep under a wooden chair. It rains."


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    return str(config), str(weights)


def cosines(files: tuple[str, str], texts: list[list[str]]) -> list[np.ndarray]:
    """open_clip's own cosines of each picture and each of its texts: CLIPScore's, unscaled."""
    import open_clip
    import torch
    from open_clip.transform import image_transform
    from safetensors.torch import load_file

    model = open_clip.CLIP(**json.loads(Path(files[0]).read_text())).eval()
    model.load_state_dict(load_file(files[1]))
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    transform = image_transform(32, is_train=False, **statistics)
    tokenize = open_clip.SimpleTokenizer(context_length=12)
    with torch.inference_mode():
        shown = torch.stack([transform(Image.fromarray(p)) for p in pictures(len(texts), 48)])
        images = model.encode_image(shown, normalize=True)
        return [
            (model.encode_text(tokenize(some), normalize=True) @ image).numpy()
            for image, some in zip(images, texts, strict=True)
        ]


def test_similarities_are_those_of_open_clip_whole_and_by_sentence(files):
    sentences = [
        "A red fox sits on a mat.",
        "Two grey cats sleep under a wooden chair.",
        "It rains.",
    ]
    judge = ClipJudge(ClipOptions(model=files[0], pretrained=files[1]), "cpu")
    scores = judge.score(pictures(2, 48), asked(["a fox", LONG]))
    whole = cosines(files, [["a fox"], [LONG]])
    single = cosines(files, [["a fox"], sentences])
    assert tuple(scores) == judge.metrics
    assert scores["clip_similarity"] == pytest.approx([w[0] for w in whole], abs=1e-3)
    means = [s.mean() for s in single]
    assert scores["clip_similarity_sentences"] == pytest.approx(means, abs=1e-3)
    # 17 words and 3 full stops, and start and end of text; the model reads 12.
    assert scores["clip_text_cut"] == pytest.approx([0, (20 + 2 - 12) / (20 + 2)])


def test_the_intent_is_what_counts_where_it_is_a_text(files):
    rows = asked(["asked so", "a fox", "a fox"], ["a fox", {"scene": 1}, None])
    same = np.repeat(pictures(1), 3, axis=0)
    of = {}
    for against in ("intent", "prompt"):
        options = ClipOptions(model=files[0], pretrained=files[1], against=against)
        of[against] = ClipJudge(options, "cpu").score(same, rows)["clip_similarity"]
    assert of["intent"][0] == of["intent"][1] == of["intent"][2] == of["prompt"][1]
    assert of["prompt"][0] != of["intent"][0]


@pytest.mark.parametrize("name", ["clip", "vqa", "detector", "reward", "round-trip"])
def test_judges_are_found_by_name_and_say_what_they_do_not_show(name):
    found = judge_class(name)
    assert issubclass(found, Judge)
    assert found.metrics
    assert all(limit.endswith(".") for limit in found.limits)
    assert len(found.limits) >= 3
    for field in found.Options.model_fields.values():
        assert field.description
