"""The VQA judge against plain unbatched forward passes, and a server that gives probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.base.errors import CaplabError, ConfigError
from curate.scoring.models.yes_no import word_tokens
from pipelines.judges.vqa import VqaJudge, VqaOptions
from tests.pipelines.judges.asked_rows import asked, pictures
from tests.recaption import tiny_captioners
from tests.recaption.moody_server import moody_server

QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
ROWS = asked(
    ["a red circle", "a large green square on a plain background above a small triangle"],
    questions=[["Is there a red circle?", "Is it large?", "Is it left of a square?"], []],
)


def expected(folder: Path, picture: np.ndarray, question: str) -> float:
    """One unpadded forward pass, and a softmax over the five tokens that spell yes or no."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    inputs = processor(text=[text], images=[[Image.fromarray(picture)]], return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1].double()
    ids = [processor.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "Yes", "no", "No")]
    shares = logits[ids].softmax(0)
    return float(shares[0] + shares[1])


@pytest.mark.parametrize("build", ["build_llava", "build_qwen25vl"])
def test_yes_against_no_is_that_of_a_plain_forward_pass(build, tmp_path, monkeypatch):
    words = [*tiny_captioners.WORDS, "yes", "Yes", "no", "No", "Does", "show", "Please", "answer"]
    monkeypatch.setattr(tiny_captioners, "WORDS", words)
    folder = getattr(tiny_captioners, build)(tmp_path / "model")
    shown = pictures(2, 40)
    judge = VqaJudge(VqaOptions(model=str(folder), batch_size=3), "cpu")
    scores = judge.score(shown, ROWS)
    texts = ROWS["prompt"].to_pylist()
    whole = [expected(folder, p, QUESTION.format(t)) for p, t in zip(shown, texts, strict=True)]
    atoms = [
        expected(folder, shown[0], f"{question} Answer in one word.")
        for question in ROWS["questions"][0].as_py()
    ]
    assert scores["vqa_score"] == pytest.approx(whole, abs=1e-3)
    assert scores["soft_tifa"][0] == pytest.approx(np.mean(atoms), abs=1e-3)
    assert scores["soft_tifa_all"][0] == pytest.approx(math.prod(atoms) ** (1 / 3), abs=1e-3)
    assert np.isnan([scores["soft_tifa"][1], scores["soft_tifa_all"][1]]).all()
    assert max(whole + atoms) - min(whole + atoms) > 0.05, "the answers hardly differ"
    assert len(judge.identity()["digest"]) == 64


def test_a_model_that_cannot_say_yes_is_refused(tmp_path):
    folder = tiny_captioners.build_llava(tmp_path / "model")
    with pytest.raises(ConfigError, match="no token for yes"):
        VqaJudge(VqaOptions(model=str(folder)), "cpu")


def test_all_spellings_of_a_word_are_found():
    vocabulary = {"yes": 0, "Ġyes": 1, "▁Yes": 2, "YES": 3, "yesterday": 4, "no": 5, "eyes": 6}
    assert word_tokens(vocabulary, "yes") == [0, 1, 2, 3]


def said(text: str, **chances: float) -> tuple[int, dict[str, str], bytes]:
    """A server's answer with the log-probabilities of its first token."""
    top = [{"token": t.replace("_", " "), "logprob": math.log(p)} for t, p in chances.items()]
    choice = {
        "message": {"role": "assistant", "content": text},
        "finish_reason": "length",
        "logprobs": {"content": [{"token": text, "logprob": 0.0, "top_logprobs": top}]},
    }
    return 200, {"Content-Type": "application/json"}, json.dumps({"choices": [choice]}).encode()


GREY = "Is this picture grey? Please answer yes or no."


def test_a_server_s_log_probabilities_give_the_same_scores():
    with moody_server() as server:
        server.scripted = {
            GREY: said("Yes", Yes=1.0),
            QUESTION.format("a red circle"): said("Yes", Yes=0.5, _yes=0.1, No=0.2, The=0.1),
            QUESTION.format(ROWS["prompt"][1].as_py()): said("The", The=0.9, A=0.1),
            "Is there a red circle? Answer in one word.": said("Yes", yes=0.9, no=0.1),
            "Is it large? Answer in one word.": said("No", NO=0.6, Yes=0.4),
            "Is it left of a square? Answer in one word.": said("No", No=1.0),
        }
        judge = VqaJudge(VqaOptions(model=server.url), "cpu")
        scores = judge.score(pictures(2), ROWS)
        body = server.bodies[-1]
    assert scores["vqa_score"][0] == pytest.approx(0.6 / 0.8)
    assert np.isnan(scores["vqa_score"][1]), "neither yes nor no is among its tokens"
    assert scores["soft_tifa"][0] == pytest.approx((0.9 + 0.4 + 0) / 3)
    assert scores["soft_tifa_all"][0] == 0
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)


def test_a_server_without_log_probabilities_is_refused_before_any_work():
    with moody_server() as server, pytest.raises(ConfigError, match="answers no question"):
        VqaJudge(VqaOptions(model=server.url), "cpu")


def test_a_server_that_stops_answering_is_told():
    with moody_server() as server:
        server.scripted = {GREY: said("Yes", Yes=1.0)}
        judge = VqaJudge(VqaOptions(model=server.url), "cpu")
        with pytest.raises(CaplabError, match="answers no question"):
            judge.score(pictures(2), ROWS)
