"""The prompts of an ablation and the judges of its pictures."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from pipelines.ablation.prompts import read_prompts
from pipelines.ablation.settings import AblateSettings
from pipelines.ablation.world_judge import WorldJudge
from pipelines.world.render import render
from pipelines.world.scene import Scene, WorldConfig


def test_the_same_scene_is_asked_for_in_every_form():
    prompts = WorldJudge(AblateSettings(scenes=20)).prompts().to_pylist()
    assert len(prompts) == 60
    by_form = {
        form: [row["scene"] for row in prompts if row["prompt_form"] == form]
        for form in ("descriptive", "short", "upsampled")
    }
    assert by_form["descriptive"] == by_form["short"] == by_form["upsampled"]


def test_scenes_that_were_trained_on_are_not_asked_for(tmp_path):
    path = tmp_path / "truth.parquet"
    first = WorldJudge(AblateSettings(scenes=20)).prompts().slice(0, 5).select(["scene"])
    pq.write_table(first, path)
    again = WorldJudge(AblateSettings(scenes=20, exclude_scenes=str(path))).prompts()
    assert not set(first["scene"].to_pylist()) & set(again["scene"].to_pylist())


def test_the_world_judge_gives_full_marks_to_true_pictures_and_few_to_shuffled_ones():
    prompts = WorldJudge(AblateSettings(scenes=60)).prompts().to_pylist()[:60]
    scenes = [row["scene"] for row in prompts]
    texts = [row["prompt"] for row in prompts]
    pictures = render([Scene.from_json(scene) for scene in scenes], WorldConfig.small(), 32)
    judge = WorldJudge(AblateSettings())
    assert judge.score(pictures, texts, scenes, "descriptive")["object_hit"].mean() == 1.0
    shuffled = judge.score(np.roll(pictures, 1, axis=0), texts, scenes, "descriptive")
    assert shuffled["object_hit"].mean() < 0.15


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("null.jsonl", '{"prompt": "a cat"}\n{"prompt": null}\n'),
        ("lacking.jsonl", '{"prompt": "a cat"}\n{"text": "a dog"}\n'),
        ("number.jsonl", '{"prompt": "a cat"}\n{"prompt": 7}\n'),
        ("blank.csv", 'prompt,prompt_form\na cat,short\n"",short\n'),
    ],
)
def test_a_row_without_a_prompt_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="Row 2 of the prompt file"):
        read_prompts(tmp_path / name)


@pytest.mark.parametrize("text", ['["a cat"]', "{", '"a cat"'])
def test_a_line_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "prompts.jsonl").write_text(text)
    with pytest.raises(ConfigError, match="is unreadable"):
        read_prompts(tmp_path / "prompts.jsonl")


def test_prompts_of_a_csv_stay_the_texts_they_are(tmp_path):
    (tmp_path / "prompts.csv").write_text("prompt,prompt_form\n007,1\n1e3,1\n")
    rows = read_prompts(tmp_path / "prompts.csv").to_pylist()
    assert [(row["prompt"], row["prompt_form"]) for row in rows] == [("007", "1"), ("1e3", "1")]


def test_prompts_of_one_s_own_are_read_with_their_forms(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "a cat", "prompt_form": "short"},
        {"prompt": "a dog", "prompt_form": "short"},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    prompts = read_prompts(path).to_pylist()
    assert [row["prompt_index"] for row in prompts] == [0, 1]


def test_a_prompt_file_without_prompts_is_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"text": "a cat"}\n')
    with pytest.raises(ConfigError, match="needs a column named 'prompt'"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arms": {"alt": {"alt": 0.5}}}, "shares of arm 'alt'"),
        ({"contrasts": [["descriptive", "altt"]]}, "'altt'"),
        ({"seeds": [1, 1]}, "only once"),
        ({"train": {"seed": 3}}, "train.seed is set by the ablation"),
        ({"judge": "clip"}, "needs `prompts`"),
        ({"judge": "clip", "prompts": "p.txt"}, "needs weights: give clip_pretrained"),
        ({"prompts": "p.txt"}, "world judge knows the scenes of its own prompts alone"),
        ({"arms": {}, "contrasts": []}, "at least one arm"),
        ({"scene": 3}, "did you mean 'scenes'"),
    ],
)
def test_an_inconsistent_experiment_is_refused_before_any_work(given, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(AblateSettings, None, given)
