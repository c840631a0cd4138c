from collections.abc import Iterator
from dataclasses import replace

import pytest
from moody_server import MoodyServer, moody_server
from tiny_captioners import picture

from curate.errors import ConfigError
from recaption.engine import CaptionRequest, Sampling
from recaption.http_engine import HttpEngine, Server, served_model

SAMPLED = Sampling(max_new_tokens=50, temperature=0.8, top_p=0.9, top_k=20)


@pytest.fixture
def moody() -> Iterator[MoodyServer]:
    with moody_server() as running:
        yield running


def server_of(moody: MoodyServer, **changes: object) -> Server:
    quick = Server(moody.url, "tiny-vlm", attempts=3, timeout=1.0, patience=1.0, first_wait=0.01)
    return replace(quick, **changes)


def asking(*prompts: str, sampling: Sampling = SAMPLED) -> CaptionRequest:
    rows = range(len(prompts))
    return CaptionRequest([picture(row) for row in rows], prompts, list(rows), sampling)


PASSING = [
    "429", "429 dated", "429 silent", "500", "503", "html", "html error", "error in 200", "null",
    "list", "endless", "dropped", "half", "slow",
]  # fmt: skip


def test_every_passing_fault_costs_tries_and_no_caption(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody))
    troubled = engine.caption(asking(*[f"once {mood}" for mood in PASSING]))
    calm = engine.caption(asking(*["simply"] * len(PASSING)))

    assert [outcome.error for outcome in troubled] == [None] * len(PASSING)
    assert [outcome.text for outcome in troubled] == [outcome.text for outcome in calm]


LASTING = {
    "429": "http_429",
    "500": "http_500",
    "400": "http_400",
    "redirect": "http_302",
    "html": "not_json",
    "html error": "http_502",
    "error in 200": "no_answer",
    "null": "no_answer",
    "list": "no_answer",
    "filtered": "content_filter",
    "endless": "connection",
    "dropped": "connection",
    "half": "connection",
    "slow": "timeout",
}


def test_a_lasting_fault_fails_its_own_row_and_is_never_taken_for_a_caption(
    moody: MoodyServer,
) -> None:
    engine = HttpEngine(server_of(moody, timeout=0.5))
    prompts = [f"always {mood}" for mood in LASTING]
    outcomes = engine.caption(asking(*prompts, "simply"))

    assert [outcome.error for outcome in outcomes] == [*LASTING.values(), None]
    assert outcomes[-1].text.startswith("A picture numbered")
    assert all("base64" not in (outcome.detail or "") for outcome in outcomes)


def test_what_will_not_pass_is_asked_once(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody))
    engine.caption(asking("always 400", "always filtered", "always 500"))
    tries = {name.split("/")[0]: count for name, count in moody.tries.items()}
    assert (tries["always 400"], tries["always filtered"], tries["always 500"]) == (1, 1, 3)


def test_requests_in_flight_are_bounded_and_many(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody), in_flight=8)
    outcomes = engine.caption(asking(*["simply"] * 60))
    assert all(outcome.text for outcome in outcomes)
    assert 4 <= moody.most_in_flight <= 8


def test_outcomes_do_not_depend_on_the_window(moody: MoodyServer) -> None:
    request = asking(*["simply", "once 500", "once dropped"] * 5)
    wide = HttpEngine(server_of(moody), in_flight=16).caption(request)
    narrow = HttpEngine(server_of(moody), in_flight=1).caption(request)
    assert wide == narrow


def test_the_request_says_what_was_asked(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody), image_size=20, picture_format="png")
    request = replace(asking("simply"), pictures=[picture(0, (80, 40))], system="Be brief.")
    outcome = engine.caption(request)[0]
    body = moody.bodies[-1]

    assert (outcome.sent_width, outcome.sent_height) == (20, 10)
    assert (outcome.finish_reason, outcome.output_tokens) == ("stop", 12)
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    assert (body["temperature"], body["top_p"], body["top_k"], body["seed"]) == (0.8, 0.9, 20, 0)
    assert body["messages"][1]["content"][0]["image_url"]["url"].startswith("data:image/png;")


def test_a_greedy_request_holds_nothing_that_only_some_servers_know(moody: MoodyServer) -> None:
    HttpEngine(server_of(moody)).caption(asking("simply", sampling=Sampling(50)))
    assert set(moody.bodies[-1]) == {"model", "messages", "max_tokens", "temperature"}


def test_a_limit_that_cut_the_caption_off_is_told(moody: MoodyServer) -> None:
    outcome = HttpEngine(server_of(moody)).caption(asking("simply", sampling=Sampling(4)))[0]
    assert outcome.finish_reason == "length"


def test_a_broken_picture_is_never_sent(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody))
    sent = len(moody.bodies)
    outcomes = engine.caption(replace(asking("simply", "simply"), pictures=[b"x", picture(1)]))
    assert [outcome.error for outcome in outcomes] == ["broken_picture", None]
    assert len(moody.bodies) == sent + 1


def test_a_server_that_is_not_there_gets_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"No captioner answers at http://127\.0\.0\.1:9/v1"):
        HttpEngine(Server("http://127.0.0.1:9/v1", "tiny-vlm", timeout=2.0))


def test_a_wrong_key_model_or_path_gets_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with moody_server(key="secret-7") as locked:
        monkeypatch.setenv("MY_KEY", "wrong")
        with pytest.raises(ConfigError, match="refuses access"):
            HttpEngine(server_of(locked, api_key_env="MY_KEY"))
        monkeypatch.setenv("MY_KEY", "secret-7")
        engine = HttpEngine(server_of(locked, api_key_env="MY_KEY"))
        assert engine.caption(asking("simply"))[0].text
        with pytest.raises(ConfigError, match=r"OTHER_KEY.* is not set"):
            HttpEngine(server_of(locked, api_key_env="OTHER_KEY"))
        with pytest.raises(ConfigError, match="has no model 'big-vlm'"):
            HttpEngine(server_of(locked, model="big-vlm", api_key_env="MY_KEY"))
        with pytest.raises(ConfigError, match="usually ends in /v1"):
            HttpEngine(server_of(locked, base_url=locked.url[:-3], api_key_env="MY_KEY"))


def test_the_only_model_of_a_server_is_found_and_several_are_named() -> None:
    with moody_server() as one, moody_server(models=("a", "b")) as two:
        assert served_model(server_of(one)) == "tiny-vlm"
        with pytest.raises(ConfigError, match=r"offers 2 models \(a, b\)"):
            served_model(server_of(two))
