"""Reward models: CLIP's two towers in this process, and programs of another interpreter."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import CaplabError, ConfigError
from curate.base.settings import load_settings
from pipelines.judges.reward import RewardJudge, RewardOptions
from tests.pipelines.judges.asked_rows import asked, pictures

ROWS = asked(["a red fox", "two cats"])


def test_the_towers_score_is_the_model_s_own_logit(tmp_path):
    import torch
    from PIL import Image
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    from tests.pipelines.judges.tiny_detectors import _words

    small = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**small, "vocab_size": 9, "max_position_embeddings": 12, "eos_token_id": 2},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    model = CLIPModel(config).eval()
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    tokenizer = _words(["a", "red", "fox", "two", "cats"], 12)
    processor = CLIPProcessor(image_processor, tokenizer)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    shown = pictures(2)
    inputs = processor(
        text=ROWS["prompt"].to_pylist(),
        images=[Image.fromarray(picture) for picture in shown],
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        expected = model(**inputs).logits_per_image.diagonal().numpy()
    judge = RewardJudge(RewardOptions(model=str(tmp_path), batch_size=1), "cpu")
    assert judge.score(shown, ROWS)["reward"] == pytest.approx(expected, abs=1e-3)
    assert len(judge.identity()["model"]) == 64


MEAN_LIGHT = """
import json, sys
from pathlib import Path
from PIL import Image, ImageStat

folder = Path(sys.argv[1])
rows = [json.loads(line) for line in open(folder / "asked.jsonl")]
print("loading a model")
with open(folder / "scores.jsonl", "w") as file:
    for row in reversed(rows):
        light = ImageStat.Stat(Image.open(folder / row["picture"]).convert("L")).mean[0]
        score = light + 1000 * len(row["prompt"])
        file.write(json.dumps({"picture": row["picture"], "score": score}) + "\\n")
"""


def judge_of(tmp_path: Path, program: str, timeout: float = 60) -> RewardJudge:
    script = tmp_path / "score it.py"
    script.write_text(program)
    command = shlex.join([sys.executable, "-I", str(script)])
    return RewardJudge(RewardOptions(command=command, timeout=timeout), "cpu")


def test_a_program_of_another_interpreter_scores_pictures_and_prompts(tmp_path):
    shown = np.stack([np.full((8, 8, 3), 40, np.uint8), np.full((8, 8, 3), 90, np.uint8)])
    judge = judge_of(tmp_path, MEAN_LIGHT)
    assert judge.score(shown, ROWS)["reward"].tolist() == [9040, 8090]
    assert list(judge.identity()) == ["score it.py"]


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("raise SystemExit('no such package')", "failed with status 1: no such package"),
        ("pass", "wrote no scores.jsonl"),
        (MEAN_LIGHT.replace("reversed(rows)", "rows[1:]"), "scored 1 of 2 .* not 000000.png"),
        (MEAN_LIGHT.replace('"score": score', '"score": None'), "wrong line 1 .*null"),
        (MEAN_LIGHT.replace("score = light", "score = float('nan')"), "wrong line 1 .*NaN"),
        ("import time; time.sleep(60)", "took more than 0.2 s"),
    ],
)
def test_what_goes_wrong_with_a_program_is_told(tmp_path, program, fault):
    timeout = 0.2 if "sleep" in program else 60
    with pytest.raises(CaplabError, match=fault):
        judge_of(tmp_path, program, timeout).score(pictures(2), ROWS)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"model": "hpsv3"}, "hpsv3 needs python"),
        ({"model": "hpsv3", "python": "python", "command": "x"}, "not both"),
        ({"python": "python"}, "python runs imagereward"),
    ],
)
def test_options_that_contradict_are_refused(given, fault):
    with pytest.raises(ConfigError, match=fault):
        load_settings(RewardOptions, None, given)


def test_a_program_that_is_not_there_is_a_wrong_setting():
    with pytest.raises(ConfigError, match="/no/such/python is not there"):
        RewardJudge(RewardOptions(command="/no/such/python score.py"), "cpu")
