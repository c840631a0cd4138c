"""A judge that somebody wrote outside of the project."""

from __future__ import annotations

import numpy as np
import pytest

from curate.base.errors import ConfigError
from pipelines.judges.prompts import prompts_table
from pipelines.judges.registry import judge_id, make_judge

OWN = "examples.judge_of_your_own:ColourJudge"


def test_the_example_s_judge_is_found_by_its_place_and_judges():
    red = np.zeros((2, 4, 4, 3), np.uint8)
    red[..., 0], red[..., 1] = 200, 50
    asked = prompts_table([{"prompt": "a red wall"}, {"prompt": "a dog"}])
    shares = {}
    for gain in (1.0, 2.0):
        judge = make_judge(OWN, {"gain": gain}, "cpu")
        one, other = judge.score(red, asked)["colour_share"]
        assert np.isnan(other)
        shares[judge_id(OWN, judge)] = one
    assert list(shares.values()) == pytest.approx([200 / 250, 200**2 / (200**2 + 50**2)])


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("nobody", {}, "no judges named"),
        ("examples.judge_of_your_own:CHANNELS", {}, "derived from"),
        ("no_module:X", {}, "cannot be imported"),
        (OWN, {"gian": 2}, "did you mean 'gain'"),
        (OWN, {"gain": -1}, "greater than 0"),
    ],
)
def test_what_is_no_judge_or_no_option_is_refused_in_one_sentence(name, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_judge(name, options, "cpu")
