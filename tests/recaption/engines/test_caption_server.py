import asyncio
import base64
import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tiny_captioners import picture

from curate.base.errors import ConfigError
from recaption.engines.caption_server import CaptionServer, ServerLimits
from recaption.engines.http.address import Server
from recaption.engines.http.engine import HttpEngine
from recaption.engines.http.loop_thread import LoopThread
from recaption.engines.http.models import served_model
from recaption.engines.protocol import CaptionEngine, CaptionOutcome, CaptionRequest, Sampling
from recaption.engines.transformers.engine import TransformersEngine

DEMO_CAPTIONER = Path(__file__).parents[3] / "pipelines/world/weights/captioner"
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "Describe it."}]}


@dataclass
class Parrot:
    """An engine that says what it was asked, once it may, and remembers its batches."""

    may_answer: threading.Event = field(default_factory=threading.Event)
    batches: list[CaptionRequest] = field(default_factory=list)
    name: str = "parrot"
    revision: str = ""

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        self.batches.append(request)
        assert self.may_answer.wait(20)
        if "die" in request.prompts:
            raise RuntimeError("the device is gone")
        return [
            CaptionOutcome(error="engine_error", detail="no") if prompt == "fail" else
            CaptionOutcome(text=f"{prompt} {seed}", finish_reason="stop", output_tokens=2)
            for prompt, seed in zip(request.prompts, request.seeds, strict=True)
        ]  # fmt: skip


@contextlib.contextmanager
def serving(
    engine: CaptionEngine, key: str = "", **limits: Any
) -> Iterator[tuple[str, CaptionServer]]:
    """A server on loopback; yields its base URL."""
    loop = LoopThread()

    async def start() -> tuple[CaptionServer, web.AppRunner]:
        server = CaptionServer(engine, "tiny", ServerLimits(**limits), key)
        runner = web.AppRunner(server.app(), handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return server, runner

    server, runner = loop.run(start())
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", server
    finally:
        loop.run(asyncio.wait_for(server.stop(), 10))
        loop.run(runner.cleanup())
        loop.close()


@pytest.fixture
def parrot() -> Parrot:
    engine = Parrot()
    engine.may_answer.set()
    return engine


def post(url: str, body: Any, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/chat/completions", raw, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), dict(error.headers)


def captions_over_http(url: str, request: CaptionRequest, size: int) -> list[CaptionOutcome]:
    engine = HttpEngine(
        Server(url, served_model(Server(url))), image_size=size, picture_format="png"
    )
    return engine.caption(request)


@pytest.mark.parametrize("sampling", [Sampling(12), Sampling(12, 0.9, 0.95, 20)])
def test_captions_over_http_are_those_of_the_engine_in_process(
    llava: Path, sampling: Sampling
) -> None:
    engine = TransformersEngine(llava, batch_size=4)
    prompts = ["Describe this image", "Name the main subject ."] * 5
    pictures = [picture(row, (40 + row, 36)) for row in range(10)]
    request = CaptionRequest(pictures, prompts, list(range(10)), sampling, "you are helpful")
    expected = engine.caption(request)
    with serving(engine, batch_size=4) as (url, _):
        found = captions_over_http(url, request, 0)
    assert [outcome.text for outcome in found] == [outcome.text for outcome in expected]
    for name in ("finish_reason", "output_tokens", "sent_width", "sent_height"):
        assert [getattr(o, name) for o in found] == [getattr(o, name) for o in expected]
    assert len({outcome.text for outcome in found}) > 3


def test_the_demos_captioner_says_the_same_over_http() -> None:
    engine = TransformersEngine(DEMO_CAPTIONER)
    pictures = [picture(row, (32, 32)) for row in range(6)]
    prompt = "Describe this image in one paragraph."
    request = CaptionRequest(pictures, [prompt] * 6, [0] * 6, Sampling(40))
    expected = engine.caption(request)
    with serving(engine) as (url, _):
        found = captions_over_http(url, request, 0)
    assert [outcome.text for outcome in found] == [outcome.text for outcome in expected]


def test_requests_of_equal_sampling_share_a_batch_and_others_do_not(parrot: Parrot) -> None:
    parrot.may_answer.clear()
    bodies = [{**ASKED, "seed": row, "max_tokens": 5 + row % 2} for row in range(12)]
    with serving(parrot, batch_size=4, max_wait=0.05) as (url, _), ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(post, url, body) for body in bodies]
        while not parrot.batches:
            pass
        parrot.may_answer.set()
        texts = [answer.result()[1]["choices"][0]["message"]["content"] for answer in answers]
    assert texts == [f"Describe it. {row}" for row in range(12)]
    assert all(len(batch) <= 4 for batch in parrot.batches)
    assert len(parrot.batches) < 12
    assert {batch.sampling.max_new_tokens for batch in parrot.batches} == {5, 6}
    for batch in parrot.batches:
        assert len({seed % 2 for seed in batch.seeds}) == 1


def test_a_full_queue_is_answered_with_429_and_the_engine_comes_back(parrot: Parrot) -> None:
    parrot.may_answer.clear()
    limits = {"batch_size": 1, "max_wait": 0.0, "most_waiting": 2}
    with serving(parrot, **limits) as (url, _), ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(post, url, ASKED) for _ in range(8)]
        refused = list(islice((a.result() for a in as_completed(answers)), 5))
        assert {status for status, _, _ in refused} == {429}
        assert {headers["Retry-After"] for _, _, headers in refused} == {"1"}
        parrot.may_answer.set()
        assert sorted(a.result()[0] for a in answers) == [200] * 3 + [429] * 5


def data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def showing(url: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "x"}]
    return {"model": "tiny", "messages": [{"role": "user", "content": content}], **fields}


WRONG = {
    "not json": (b"{", 400),
    "invalid utf-8": (b'{"model": "\xff"}', 400),
    "deep": (b"[" * 200_000, 400),
    "a list": ([], 400),
    "no turns": ({"model": "tiny", "messages": []}, 400),
    "another model": ({**ASKED, "model": "large"}, 404),
    "a stream": ({**ASKED, "stream": True}, 400),
    "several answers": ({**ASKED, "n": 2}, 400),
    "an unknown field": ({**ASKED, "min_p": 0.1}, 400),
    "too many tokens": ({**ASKED, "max_tokens": 5000}, 400),
    "a temperature in words": ({**ASKED, "temperature": "hot"}, 400),
    "a negative temperature": ({**ASKED, "temperature": -1}, 400),
    "top_p of nothing": ({**ASKED, "top_p": 0}, 400),
    "a broken seed": ({**ASKED, "seed": 1.5}, 400),
    "broken base64": (showing("data:image/png;base64,####"), 400),
    "a picture by address": (showing("http://127.0.0.1/x.png"), 400),
    "a file": (showing("file:///etc/passwd"), 400),
    "too large": (showing(data_uri(b"x" * 100_000)), 413),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_gets_a_json_error_and_reaches_no_engine(parrot: Parrot, name: str) -> None:
    body, expected = WRONG[name]
    with serving(parrot, most_bytes=50_000 if name == "too large" else 1 << 20) as (url, _):
        status, answer, _ = post(url, body)
    assert status == expected
    assert answer["error"]["message"]
    assert not parrot.batches


def test_a_private_address_is_refused_even_where_addresses_are_allowed(parrot: Parrot) -> None:
    with serving(parrot, allow_urls=True) as (url, _):
        status, answer, _ = post(url, showing(url.replace("/v1", "/health")))
    assert status == 400
    assert "cannot be fetched" in answer["error"]["message"]


def test_an_engines_errors_are_told_apart(llava: Path, parrot: Parrot) -> None:
    with serving(TransformersEngine(llava)) as (url, _):
        status, answer, _ = post(url, showing(data_uri(b"no picture")))
    assert (status, answer["error"]["code"]) == (400, "broken_picture")
    failing = {**ASKED, "messages": [{"role": "user", "content": "fail"}]}
    with serving(parrot) as (url, _):
        status, answer, _ = post(url, failing)
    assert (status, answer["error"]["type"]) == (500, "server_error")


def test_an_engine_that_breaks_down_answers_everybody_and_ends_the_server(parrot: Parrot) -> None:
    dying = {**ASKED, "messages": [{"role": "user", "content": "die"}]}
    with serving(parrot) as (url, server):
        assert post(url, dying)[0] == 500
        assert post(url, ASKED)[0] == 429
        assert isinstance(server.batcher.worker.exception(), RuntimeError)


def test_an_answer_says_what_openais_says(parrot: Parrot) -> None:
    with serving(parrot) as (url, _):
        status, answer, _ = post(url, {**ASKED, "seed": 2**40 + 3, "user": "me", "stream": False})
        with urllib.request.urlopen(f"{url}/models") as response:
            assert json.load(response)["data"][0]["id"] == "tiny"
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Describe it. 3"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2}
    assert parrot.batches[0].sampling == Sampling(256, temperature=1.0)


def test_a_key_is_asked_for_where_one_is_set(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(parrot, key="open sesame") as (url, _):
        assert post(url, ASKED)[0] == 401
        assert post(url, ASKED, Authorization="Bearer open")[0] == 401
        assert post(url, ASKED, Authorization="Bearer open sesame")[0] == 200
        with pytest.raises(ConfigError, match="refuses access"):
            served_model(Server(url))
        monkeypatch.setenv("MY_KEY", "open sesame")
        assert served_model(Server(url, api_key_env="MY_KEY")) == "tiny"


def test_a_client_that_goes_away_takes_its_request_back(parrot: Parrot) -> None:
    parrot.may_answer.clear()
    with serving(parrot, batch_size=1, max_wait=0.0) as (url, _):
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(post, url, ASKED)
            while not parrot.batches:
                pass
            hasty = replace(Server(url, "tiny"), timeout=0.2, attempts=1)
            with contextlib.suppress(ConfigError):
                HttpEngine(hasty)
            parrot.may_answer.set()
            assert first.result()[0] == 200
        assert post(url, ASKED)[0] == 200
    assert [batch.prompts for batch in parrot.batches] == [["Describe it."]] * 2
