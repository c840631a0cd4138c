"""A question as a score: alike in every batch and on resume; a row's failure is data."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from curate.base.errors import ConfigError, StageError
from curate.scoring.models.ask import WORDING, Ask, AskedModel
from curate.scoring.models.yes_no import LocalAnswerer
from curate.scoring.scorers.make import make_scorers
from curate.scoring.settings import ScoreSettings
from curate.scoring.stage import ScoreStage
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip
from tests.recaption import tiny_captioners
from tests.recaption.moody_server import moody_server

SAID = ["yes", "Yes", "no", "No", "Please", "answer", "Is", "there", "grey"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_captioners, "WORDS", [*tiny_captioners.WORDS, *SAID])
        return str(tiny_captioners.build_qwen25vl(tmp_path_factory.mktemp("model")))


@pytest.fixture
def settings(tmp_path, model):
    config, weights = tiny_clip(tmp_path / "clip")

    def made(**options):
        options = {"ask_model": model, "device": "cpu", **options}
        return ScoreSettings(clip_model=str(config), clip_pretrained=str(weights), **options)

    return made


@pytest.fixture
def dataset(tmp_path):
    pictures = [encoded(drawn(n, 40 + 8 * n, 40)) for n in range(4)]
    return make_dataset(tmp_path / "data", [[(file, "a text") for file in (*pictures, b"no")]])


def column(dataset, name):
    return dataset.read_table("scores", "00000").column(name).to_pylist()


def test_answers_are_alike_in_every_batch_and_on_resume(settings, dataset):
    asked = {"red": "Is there a red circle?", "blue": "Is there a blue square?"}
    stage = ScoreStage(settings(ask={"red": asked["red"]}, score_batch_size=4))
    assert stage.run(dataset, "00000")["undecodable"] == 1
    together = column(dataset, "red")
    assert together[-1] is None
    assert all(0 < yes < 1 for yes in together[:-1])
    assert len({round(yes, 6) for yes in together[:-1]}) == 4
    both = ScoreStage(settings(ask=asked, score_batch_size=1))
    assert not both.is_done(dataset, "00000")
    both.run(dataset, "00000")
    assert column(dataset, "red") == together
    assert both.is_done(dataset, "00000")
    dataset.table_path("scores", "00000").unlink()
    both.run(dataset, "00000")
    assert column(dataset, "red")[:-1] == pytest.approx(together[:-1], abs=1e-5)
    assert column(dataset, "red_error") == [None] * 5


P1, P2, P6 = (math.log(p) for p in (0.1, 0.2, 0.6))


def scripted(answers):
    """Answers of a server, by question: token -> log-probability."""
    found = {}
    for question, chances in answers.items():
        top = [{"token": token, "logprob": chance} for token, chance in chances.items()]
        logprobs = {"content": [{"token": "x", "logprob": 0.0, "top_logprobs": top}]}
        message = {"role": "assistant", "content": "x"}
        choice = {"message": message, "finish_reason": "length", "logprobs": logprobs}
        kind = {"Content-Type": "application/json"}
        answer = json.dumps({"choices": [choice]}).encode()
        found[WORDING.format(question)] = (200, kind, answer)
    return found


def test_a_server_that_is_lost_ends_the_run_and_asks_nothing_when_all_is_answered(
    settings, dataset
):
    with moody_server() as server:
        server.scripted = scripted({"Is this picture grey?": {"Yes": 0.0}, "Is it?": {"no": 1e9}})
        server.refused_fields = {"max_tokens"}
        asking = {"ask": {"logo": "Is it?"}, "ask_model": server.url}
        made = settings(**asking, ask_extra_body={"top_logprobs": 5})
        stage = ScoreStage(made)
        stage.graph.producer["logo"].open()
        server.key = "changed"
        with pytest.raises(StageError, match=r"refuses access .* ask_api_key_env.* takes up"):
            stage.run(dataset, "00000")
        assert not dataset.has_shard("scores", "00000"), "nothing says that it was answered"
        server.key = ""
        stage.run(dataset, "00000")
        assert column(dataset, "logo") == [0.0] * 4 + [None]
        assert server.bodies[-1]["top_logprobs"] == 5
        assert "max_completion_tokens" in server.bodies[-1]
    # The server is gone; what rests on its answers is known, and another column can be added.
    assert stage.settings.ask_served_model == "tiny-vlm"
    later = ScoreStage(stage.settings)
    later.open()
    assert later.is_done(dataset, "00000")


def test_a_model_that_begins_its_answers_otherwise_is_told_of(settings, caplog):
    with moody_server() as server:
        server.scripted = scripted({"Is this picture grey?": {"<think>": 0.0, "Yes": -9.0}})
        AskedModel(settings(ask_model=server.url)).open()
    assert "it may think first" in caplog.text


def test_a_pictures_failure_is_null_with_its_reason_and_ends_no_other(settings, dataset):
    with moody_server() as server:
        server.scripted = scripted(
            {
                "Is this picture grey?": {"Yes": 0.0},
                "Is it a logo?": {"Yes": P6, "_no": P1, "No": P2, " yes.": P1, "nought": math.nan},
                "Is it a map?": {"The": -0.1},
            }
        )
        made = settings(ask={"logo": "Is it a logo?", "map": "Is it a map?"}, ask_model=server.url)
        counts = ScoreStage(made).run(dataset, "00000")
        body = server.bodies[-1]
        # Once it answers, what failed is asked again where that is asked for, and nothing else.
        told = [column(dataset, name) for name in ("logo", "map", "map_error")]
        server.scripted |= scripted({"Is it a map?": {"yes": 0.0}})
        assert ScoreStage(made).is_done(dataset, "00000")
        again = ScoreStage(made, retry_failed=True)
        assert not again.is_done(dataset, "00000")
        before = len(server.bodies)
        again.run(dataset, "00000")
        assert again.is_done(dataset, "00000")
        asked = [json.dumps(one["messages"]) for one in server.bodies[before:]]
    assert sum("map?" in one for one in asked) == 4
    assert not any("logo?" in one for one in asked)
    assert column(dataset, "logo") == told[0]
    assert column(dataset, "map") == [1.0] * 4 + [None]
    assert column(dataset, "map_error") == [None] * 5
    assert told[0] == pytest.approx([0.7 / 0.9] * 4 + [None])
    assert told[1] == [None] * 5
    assert "neither yes nor no" in told[2][0]
    assert told[2][-1] is None, "nobody was asked about it"
    assert counts["map_error"] == 4
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)


def test_a_picture_that_the_processor_refuses_is_the_only_one_without_an_answer(model):
    answerer = LocalAnswerer(model, "cpu", "fp32", 3, "model")
    shapes = [(40, 40), (500, 2), (48, 40)]  # no more than 200 to 1, says Qwen's
    pictures = [Image.fromarray(drawn(0, *shape)) for shape in shapes]
    answers = answerer.yes(pictures, ["Is there a red circle?"] * 3)
    assert np.isnan(answers.yes).tolist() == [False, True, False]
    assert list(answers.errors) == [1]
    assert "aspect ratio" in answers.errors[1]


def test_a_question_has_a_signature_and_where_its_server_is_has_none(settings, model):
    with moody_server() as one, moody_server() as other:
        first, second = (
            Ask("logo", "Is it?", AskedModel(settings(ask_model=server.url)))
            for server in (one, other)
        )
    assert first.signature() == second.signature()
    local = AskedModel(settings())
    assert Ask("a", "Is it?", local).signature() != Ask("a", "Was it?", local).signature()
    assert "model.safetensors" in Ask("a", "Is it?", local).hashes()
    assert "tokenizer_config.json" in local.identity["words"]
    told = AskedModel(
        settings(ask_model="http://h/v1", ask_served_model="m", ask_extra_body={"a": 1})
    )
    assert told.identity == {"served": "m", "extra_body": {"a": 1}}


def test_mistakes_are_one_sentence_before_any_work(settings, dataset, tmp_path):
    with pytest.raises(ConfigError, match="--ask needs a model"):
        make_scorers(settings(ask={"logo": "Is it?"}, ask_model=None))
    with pytest.raises(ConfigError, match=r"no vision-language model of transformers: no config"):
        make_scorers(settings(ask={"logo": "Is it?"}, ask_model=str(tmp_path)))
    with pytest.raises(ConfigError, match="holds a password"):
        settings(ask_model="http://me:secret@localhost:8000/v1")
    silent = str(tiny_captioners.build_llava(tmp_path / "silent"))
    stage = ScoreStage(settings(ask={"logo": "Is it?"}, ask_model=silent))
    with pytest.raises(ConfigError, match="no token for yes"):
        stage.open()
    with moody_server() as server:
        asking = {"ask": {"logo": "Is it?"}, "ask_model": server.url}
        with pytest.raises(ConfigError, match="its server gives no top_logprobs"):
            ScoreStage(settings(**asking)).run(dataset, "00000")
        server.mood = "only reasoning"
        with pytest.raises(ConfigError, match=r"--ask-extra-body .chat_template_kwargs"):
            ScoreStage(settings(**asking)).run(dataset, "00000")
        server.mood, server.models = "", ("a", "b")
        with pytest.raises(ConfigError, match="to use with ask_served_model"):
            make_scorers(settings(**asking))
