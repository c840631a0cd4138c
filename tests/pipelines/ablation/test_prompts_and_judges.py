"""The prompts of a study, what it declares, and the judges that it names."""

import json

import pytest

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from pipelines.ablation.settings import AblateSettings
from pipelines.judges.prompts import PROMPTS, read_prompts
from pipelines.judges.registry import JUDGES, judge_class


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("null.jsonl", '{"prompt": "a cat"}\n{"prompt": null}\n', "Row 2 of the prompt file"),
        ("lacking.jsonl", '{"prompt": "a cat"}\n{"text": "a dog"}\n', "Row 2 of the prompt file"),
        ("number.jsonl", '{"prompt": "a cat"}\n{"prompt": 7}\n', "Row 2 of the prompt file"),
        ("blank.csv", 'prompt,form\na cat,short\n"",short\n', "Row 2 of the prompt file"),
        ("form.jsonl", '{"prompt": "a cat", "form": 3}\n', "'form' that is no text"),
        ("asks.jsonl", '{"prompt": "a cat", "questions": [3]}\n', "'questions' that are no list"),
        ("none.jsonl", '{"text": "a cat"}\n', "needs a column named 'prompt'"),
        ("list.jsonl", '["a cat"]', "is unreadable"),
        ("cut.jsonl", "{", "is unreadable"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_refused_by_its_row(tmp_path, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_prompts(tmp_path / name)


def test_a_prompt_file_says_form_wording_intent_category_and_questions(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text(
        "prompt,form,wording,id,intent,category,questions\n"
        'a cat,short,typed,007,a cat,animals,"[""is there a cat?""]"\n'
        "a cat on a mat,long,,007,a cat,animals,\n"
        "a cat,short,typed,8,,,\n"  # the same text again counts once
        "1e3,short,,9,,,\n"
    )
    table = read_prompts(path)
    assert table.schema == PROMPTS
    first, second, third = table.to_pylist()
    assert first["intent_id"] == second["intent_id"] != third["intent_id"]
    assert (first["form"], first["wording"], second["wording"]) == ("short", "typed", "own")
    assert (first["intent"], first["category"]) == ("a cat", "animals")
    assert first["questions"] == ["is there a cat?"]
    assert (third["prompt"], third["intent"], third["questions"]) == ("1e3", None, [])
    assert len({row["prompt_id"] for row in (first, second, third)}) == 3


def test_geneval_s_metadata_is_read_as_it_is_published(tmp_path):
    path = tmp_path / "evaluation_metadata.jsonl"
    record = {
        "tag": "counting",
        "include": [{"class": "clock", "count": 2}],
        "exclude": [{"class": "clock", "count": 3}],
        "prompt": "a photo of two clocks",
    }
    path.write_text(json.dumps(record) + "\n")
    (row,) = read_prompts(path).to_pylist()
    assert (row["category"], row["prompt"]) == ("counting", "a photo of two clocks")
    assert json.loads(row["intent"]) == record


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arms": {"alt": {"alt": 0.5}}}, "the shares must be positive and sum to 1"),
        ({"contrasts": [["descriptive", "altt"]]}, "'altt'"),
        ({"no_worse": [{"arm": "x", "than": "alt", "form": "short", "margin": 0.1}]}, "'x'"),
        ({"trends": {"dose": {"alt": 0, "y": 1}}}, "'y'"),
        ({"seeds": [1, 1]}, "only once"),
        ({"arms": {"alt": {"captions": {"alt": 1}, "seeds": [2, 2]}}}, "only once"),
        ({"arms": {"a/b": {"alt": 1.0}}}, "letters, digits"),
        ({"arms": {"alt": {"captions": {"alt": 1}, "ask": {"clip": 7}}}}, "quantiles from 0.0"),
        ({"train": {"seed": 3}}, "train.seed is set by the study"),
        ({"arms": {}, "contrasts": []}, "at least one arm"),
        ({"judges": []}, "at least one judge"),
        ({"judge": "clip"}, "judge is called judges now"),
        ({"primary_metric": "binding"}, "primary_metric is called primary: {metric: ...} now"),
        ({"seedz": 3}, "did you mean 'seeds'"),
        (
            {
                "arms": {"short-50": {"alt": 1.0}},
                "sweeps": {"s": {"kind": "short", "rest": "alt", "shares": [0, 50]}},
            },
            "'short-50' unlike the one",
        ),
    ],
)
def test_an_inconsistent_experiment_is_refused_before_any_work(given, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(AblateSettings, None, given)


def test_arms_sweeps_and_contrasts_may_be_said_in_short():
    study = load_settings(
        AblateSettings,
        None,
        {
            "arms": {"alt": {"alt": 1}, "long": {"captions": {"long": 1}, "seeds": [8, 9]}},
            "sweeps": {"share": {"kind": "long", "rest": "alt", "shares": [0, 95]}},
            "judges": ["world", "clip"],
            "prompts": "{scenes: 3}",
        },
    )
    assert list(study.all_arms) == ["alt", "long", "long-0", "long-95"]
    assert study.all_arms["long-95"].captions == pytest.approx({"long": 0.95, "alt": 0.05})
    assert study.contrasts == (("long", "alt"),)  # each against the first
    assert (study.seeds_of("alt"), study.seeds_of("long")) == ((0, 1, 2), (8, 9))
    assert study.declaration().trends == {"share": {"long-0": 0.0, "long-95": 95.0}}
    assert (study.judges, study.prompts) == ({"world": {}, "clip": {}}, {"scenes": 3})


@pytest.mark.parametrize("name", JUDGES)
def test_every_judge_that_has_a_name_is_there(name):
    assert judge_class(name).metrics is not None
