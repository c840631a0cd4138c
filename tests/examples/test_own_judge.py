"""A judge that somebody wrote outside of the project."""

from __future__ import annotations

import numpy as np
import pytest

from curate.base.errors import ConfigError
from pipelines.ablation.judges import make_judge
from pipelines.ablation.settings import AblateSettings


def settings(judge: str, prompts: str = "prompts.txt") -> AblateSettings:
    return AblateSettings(judge=judge, prompts=prompts, primary_metric="colour_share")


def test_the_example_s_judge_is_found_by_its_place_and_judges(tmp_path):
    (tmp_path / "prompts.txt").write_text("a red wall\na dog\n")
    judge = make_judge(
        settings("examples.judge_of_your_own:ColourJudge", str(tmp_path / "prompts.txt")), "cpu"
    )
    red = np.zeros((2, 4, 4, 3), np.uint8)
    red[..., 0] = 200
    texts = judge.prompts()["prompt"].to_pylist()
    shares = judge.score(red, texts, [None, None], "prompt")["colour_share"]
    assert shares[0] == 1
    assert np.isnan(shares[1])


@pytest.mark.parametrize("name", ["nobody", "examples.judge_of_your_own:CHANNELS", "no_module:X"])
def test_what_is_no_judge_is_refused_in_one_sentence(name):
    with pytest.raises(ConfigError, match=r"judges|derived from"):
        make_judge(settings(name), "cpu")
