from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from moody_server import MoodyServer, moody_server
from tiny_captioners import picture

from curate.base.errors import ConfigError
from curate.served.address import Server
from curate.served.models import served_model
from curate.served.reply import understand
from recaption.engines.http.engine import HttpEngine
from recaption.engines.protocol import CaptionOutcome, CaptionRequest, Sampling

SAMPLED = Sampling(max_new_tokens=50, temperature=0.8, top_p=0.9, top_k=20)


@pytest.fixture
def moody() -> Iterator[MoodyServer]:
    with moody_server() as running:
        yield running


def server_of(moody: MoodyServer, **changes: object) -> Server:
    quick = Server(moody.url, "tiny-vlm", attempts=3, timeout=1.0, patience=1.0, first_wait=0.01)
    return replace(quick, **changes)


def timeless(outcome: CaptionOutcome) -> CaptionOutcome:
    return replace(outcome, latency_seconds=None)


def asking(*prompts: str, sampling: Sampling = SAMPLED) -> CaptionRequest:
    rows = range(len(prompts))
    return CaptionRequest([picture(row) for row in rows], prompts, list(rows), sampling)


PASSING = [
    "429", "429 dated", "429 silent", "500", "503", "html", "html error", "error in 200", "null",
    "list", "endless", "dropped", "half", "slow", "trickling", "empty choices", "error and half",
    "429 in 200", "aborted", "invalid utf-8", "deep", "no gzip", "no http",
]  # fmt: skip


def test_every_passing_fault_costs_tries_and_no_caption(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody))
    troubled = engine.caption(asking(*[f"once {mood}" for mood in PASSING]))
    calm = engine.caption(asking(*["simply"] * len(PASSING)))

    assert dict(
        zip(PASSING, [outcome.error for outcome in troubled], strict=True)
    ) == dict.fromkeys(PASSING)
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
    "trickling": "timeout",
    "empty choices": "no_answer",
    "error and half": "http_502",
    "429 in 200": "http_429",
    "aborted": "no_answer",
    "invalid utf-8": "not_json",
    "deep": "not_json",
    "no gzip": "connection",
    "no http": "connection",
    "refused": "refused",
    "only reasoning": "only_reasoning",
    "no quota": "http_429",
    "echo": "http_400",
}


def test_a_lasting_fault_fails_its_own_row_and_is_never_taken_for_a_caption(
    moody: MoodyServer,
) -> None:
    engine = HttpEngine(server_of(moody, timeout=0.5))
    prompts = [f"always {mood}" for mood in LASTING]
    outcomes = engine.caption(asking(*prompts, "simply"))

    found = dict(zip(LASTING, [outcome.error for outcome in outcomes[:-1]], strict=True))
    assert found == LASTING
    assert outcomes[-1].text.startswith("A picture numbered")
    assert all("base64" not in (outcome.detail or "") for outcome in outcomes)


def test_what_will_not_pass_is_asked_once(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody))
    lasting = ["400", "filtered", "refused", "only reasoning", "no quota"]
    engine.caption(asking(*[f"always {mood}" for mood in lasting], "always 500"))
    tries = {name.split("/")[0].removeprefix("always "): n for name, n in moody.tries.items()}
    assert [tries[mood] for mood in lasting] == [1] * len(lasting)
    assert tries["500"] == 3


def test_requests_in_flight_are_bounded_and_many(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody), in_flight=8)
    outcomes = engine.caption(asking(*["simply"] * 60))
    assert all(outcome.text for outcome in outcomes)
    assert 4 <= moody.most_in_flight <= 8


def test_outcomes_do_not_depend_on_the_window(moody: MoodyServer) -> None:
    request = asking(*["simply", "once 500", "once dropped"] * 5)
    wide = HttpEngine(server_of(moody), in_flight=16).caption(request)
    narrow = HttpEngine(server_of(moody), in_flight=1).caption(request)
    assert [timeless(outcome) for outcome in wide] == [timeless(outcome) for outcome in narrow]
    assert all(outcome.latency_seconds > 0 for outcome in [*wide, *narrow])


def test_the_request_says_what_was_asked(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody), image_size=20, picture_format="png")
    request = replace(asking("simply"), pictures=[picture(0, (80, 40))], system="Be brief.")
    outcome = engine.caption(request)[0]
    body = moody.bodies[-1]

    assert (outcome.sent_width, outcome.sent_height) == (20, 10)
    assert (outcome.finish_reason, outcome.output_tokens) == ("stop", 12)
    assert outcome.prompt_tokens == 70
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
    with pytest.raises(ConfigError, match=r"No model answers at http://127\.0\.0\.1:9/v1"):
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
        with pytest.raises(ConfigError, match="usually ends in /v1"):
            served_model(server_of(locked, base_url=locked.url[:-3], api_key_env="MY_KEY"))


def test_the_only_model_of_a_server_is_found_and_several_are_named() -> None:
    with moody_server() as one, moody_server(models=("a", "b")) as two:
        assert served_model(server_of(one)) == "tiny-vlm"
        with pytest.raises(ConfigError, match=r"offers 2 models \(a, b\)"):
            served_model(server_of(two))


HOPELESS = {
    "402": "Insufficient credits",
    "no quota": "insufficient_quota",
    "redirect": "redirects to http://elsewhere.test/",
    "413": "Request Entity Too Large",
    "201 without text": "http_201|queued",
    "stream": "data: ",
    "null": "null",
    "no letter": "gave no text",
    "no pictures": "image input is not supported.*reads no pictures",
    "error in 200": "model overloaded",
    "html": "502 Bad Gateway",
    "empty choices": "choices",
    "only reasoning": "reasoning",
    "500": "CUDA out of memory",
}


@pytest.mark.parametrize("mood", HOPELESS)
def test_a_server_without_a_caption_for_the_trial_stops_in_its_own_words(
    moody: MoodyServer, mood: str
) -> None:
    moody.mood = mood
    with pytest.raises(ConfigError, match=HOPELESS[mood]):
        HttpEngine(server_of(moody))


@pytest.mark.parametrize("mood", ["filtered", "refused"])
def test_a_filter_that_withholds_the_grey_picture_says_nothing_of_others(
    moody: MoodyServer, mood: str
) -> None:
    moody.mood = mood
    engine = HttpEngine(server_of(moody))
    moody.mood = ""
    assert engine.caption(asking("simply"))[0].text


def test_a_server_that_is_busy_or_stumbles_at_the_trial_is_asked_again(moody: MoodyServer) -> None:
    moody.busy = 2
    HttpEngine(server_of(moody))
    assert moody.busy == 0


def test_a_server_of_texts_alone_is_tried_without_a_picture(moody: MoodyServer) -> None:
    HttpEngine(server_of(moody), sees=False)
    assert isinstance(moody.bodies[-1]["messages"][-1]["content"], str)


def test_a_redirect_is_named_without_the_secrets_in_it(moody: MoodyServer) -> None:
    moody.mood = "login"
    with pytest.raises(ConfigError, match=r"redirects to https://sso\.test/login") as refused:
        HttpEngine(server_of(moody))
    assert "secret-7" not in str(refused.value)


def test_neither_key_nor_picture_stands_in_an_error(
    moody: MoodyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-7\n")
    engine = HttpEngine(server_of(moody, api_key_env="MY_KEY"))
    outcome = engine.caption(asking("always echo"))[0]
    assert "Bearer ***" in outcome.detail
    assert "secret-7" not in outcome.detail + caplog.text
    raw = (
        b'{"detail": [{"input": {"url": "data:image/png;base64,' + b"iVBORw0KGgo=" * 999 + b'"}}]}'
    )
    detail = understand(422, None, raw, None).outcome.detail
    assert "base64,..." in detail
    assert "iVBOR" not in detail


@pytest.mark.parametrize(
    "url",
    [
        "http://me:secret-7@host/v1",
        "https://host/v1?api-key=secret-7",
        "https://host/v1?access_token=secret-7",
        "host/v1",
        "http://host:port/v1",
        "https://host/v1/chat/completions",
    ],
)
def test_an_address_that_cannot_work_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Server(url)
    assert "secret-7" not in str(refused.value)


def test_the_query_of_an_address_stays_behind_the_path(moody: MoodyServer) -> None:
    HttpEngine(server_of(moody, base_url=f"{moody.url}/?api-version=2024-10-21"))
    assert moody.paths[-1] == "/v1/chat/completions?api-version=2024-10-21"


def test_a_row_without_a_picture_is_a_text_alone(moody: MoodyServer) -> None:
    request = replace(asking("simply"), pictures=[None])
    outcome = HttpEngine(server_of(moody)).caption(request)[0]
    assert outcome.text.startswith("A picture numbered")
    assert (outcome.sent_width, outcome.sent_height) == (None, None)
    assert moody.bodies[-1]["messages"] == [{"role": "user", "content": "simply"}]


def test_a_field_that_the_server_refuses_is_named_before_the_run(moody: MoodyServer) -> None:
    moody.refused_fields = {"max_tokens", "seed", "top_k"}
    plain = server_of(moody)
    with pytest.raises(ConfigError, match=r"Unsupported parameter: '.*omit_fields"):
        HttpEngine(plain, trial=SAMPLED)
    server = replace(
        plain,
        token_limit_field="max_completion_tokens",
        omit_fields=("seed", "top_k"),
        extra_body={"reasoning_effort": "low"},
    )
    assert HttpEngine(server, trial=SAMPLED).caption(asking("simply"))[0].text
    sent = {"model", "messages", "max_completion_tokens", "temperature", "top_p"}
    assert set(moody.bodies[-1]) == {*sent, "reasoning_effort"}
    with pytest.raises(ConfigError, match="extra_body cannot hold 'seed'"):
        replace(plain, extra_body={"seed": 3})


def test_connections_are_kept_from_call_to_call(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody), in_flight=4)
    for _ in range(5):
        engine.caption(asking(*["simply"] * 12))
    assert len(moody.connections) <= 4


def test_several_threads_share_the_window(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody), in_flight=6)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(engine.caption, [asking(*["simply"] * 20)] * 4))
    assert all(outcome.text for outcomes in answers for outcome in outcomes)
    assert moody.most_in_flight <= 6


def test_a_busy_server_is_waited_for_beyond_the_tries_of_a_broken_one(moody: MoodyServer) -> None:
    engine = HttpEngine(server_of(moody, attempts=1, patience=20.0))
    moody.busy = 40
    outcomes = engine.caption(asking(*["simply"] * 8))
    assert all(outcome.text for outcome in outcomes)


def test_a_server_that_goes_away_costs_each_row_its_caption_and_no_more() -> None:
    with moody_server() as moody:
        engine = HttpEngine(server_of(moody, patience=0.3))
    outcomes = engine.caption(asking(*["simply"] * 200))
    assert {outcome.error for outcome in outcomes} == {"connection"}


def test_what_only_a_hostile_server_says_fits_the_captions_table() -> None:
    message = '{"message": {"content": "A \\ud83d cat\\u0000."}, "finish_reason": null}'
    usage = '{"prompt_tokens": 1e99, "completion_tokens": -3}'
    raw = f'{{"choices": [{message}], "usage": {usage}}}'.encode()
    outcome = understand(200, None, raw, (1, 1)).outcome
    assert (outcome.text, outcome.prompt_tokens, outcome.output_tokens) == (
        "A \ufffd cat\0.",
        None,
        None,
    )
    huge = raw.replace(b"1e99", b"9" * 4000)
    assert understand(200, None, huge, (1, 1)).outcome.prompt_tokens is None


@pytest.mark.parametrize("after", ["nan", "inf", "soon", "Wed, 99 Oct 2015 07:28:00 GMT", "-5"])
def test_a_strange_retry_after_is_no_wait_without_end(after: str) -> None:
    reply = understand(429, after, b"", None)
    assert reply.busy
    assert reply.wait in (None, 0.0)


def test_fields_of_a_servers_own_are_given_as_options() -> None:
    from pipelines.terminal.options import named_values

    given = named_values("chat_template_kwargs={enable_thinking: false}")
    server = Server("http://host/v1", extra_body=given)
    assert server.extra_body == {"chat_template_kwargs": {"enable_thinking": False}}
