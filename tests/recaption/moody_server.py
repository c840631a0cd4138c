"""A real local OpenAI-compatible server in all its moods, for tests of the HTTP engine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request, dict[str, Any], int], Awaitable[web.StreamResponse]]


@dataclass
class MoodyServer:
    """Answers each prompt by the mood that it names; counts what it saw.

    A prompt such as "please 429" meets that mood on its first try and a caption afterwards;
    "always html" meets it on every try.
    """

    url: str = ""
    key: str = ""
    models: tuple[str, ...] = ("tiny-vlm",)
    refused_fields: set[str] = field(default_factory=set)
    story: str = ""
    """What follows every caption."""
    scripted: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    """Prompt -> status, headers and body of its answer."""
    busy: int = 0
    """How many further requests are answered with 429."""
    mood: str = ""
    """Met by every request, whatever it asks,"""
    calm: int = 0
    """once so many were answered with a caption."""
    paths: list[str] = field(default_factory=list)
    """Path and query of every request."""
    connections: set[int] = field(default_factory=set)
    tries: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._complete(request)
        finally:
            self.in_flight -= 1

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "wrong key"}, status=401)
        body = await request.json()
        if body["model"] not in self.models:
            return web.json_response({"error": f"no model {body['model']}"}, status=404)
        prompt = prompt_of(body)
        name = f"{prompt}/{body.get('seed')}/{picture_of(body)[:8].hex()}"
        for name_of_field in self.refused_fields & body.keys():
            error = {"message": f"Unsupported parameter: '{name_of_field}'"}
            return web.json_response({"error": error}, status=400)
        if self.busy > 0:
            self.busy -= 1
            return await MOODS["429"](request)
        self.tries[name] += 1
        self.bodies.append(body)
        self.connections.add(id(request.transport))
        self.calm -= 1
        if self.mood and self.calm < 0:
            return await MOODS[self.mood](request)
        if prompt in self.scripted:
            status, headers, answer = self.scripted[prompt]
            return web.Response(status=status, headers=headers, body=answer)
        how, _, mood = prompt.partition(" ")
        if mood in MOODS and (how == "always" or self.tries[name] == 1):
            return await MOODS[mood](request)
        await asyncio.sleep(0.002)
        return caption(body, self.story)

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": [{"id": name} for name in self.models]})


def prompt_of(body: dict[str, Any]) -> str:
    """The text of a request's last turn."""
    content = body["messages"][-1]["content"]
    text: str = content if isinstance(content, str) else content[1]["text"]
    return text


def picture_of(body: dict[str, Any]) -> bytes:
    """sha256 of the picture in a request, after checking that it is a picture; empty for none."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return b""
    url = content[0]["image_url"]["url"]
    head, encoded = url.split(",", 1)
    raw = base64.b64decode(encoded)
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    assert raw[:2] == b"\xff\xd8" or raw[:4] == b"\x89PNG"
    return hashlib.sha256(raw).digest()


def caption(body: dict[str, Any], story: str = "") -> web.Response:
    """A caption that depends on picture, prompt and seed alone."""
    mark = hashlib.sha256(picture_of(body) + str(body.get("seed")).encode()).hexdigest()[:6]
    text = f"A picture numbered {mark} hangs on a plain wall beside a door.{story}"
    if body.get("max_tokens", body.get("max_completion_tokens")) < 8:
        text, finish = "A picture", "length"
    else:
        finish = "stop"
    message = {"role": "assistant", "content": text}
    return web.json_response(
        {
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 70, "completion_tokens": len(text.split())},
        }
    )


async def _dropped(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "A half cap')
    assert request.transport is not None
    request.transport.abort()
    return response


async def _slow(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


async def _trickling(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    with suppress(ConnectionError):
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.05)
    return response


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(b"x" * (1 << 18))
    return response


async def _no_http(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")  # type: ignore[attr-defined]
    request.transport.close()
    return web.Response()


async def _echo(request: web.Request) -> web.StreamResponse:
    """Quotes the whole request in its error, as some validators do."""
    quoted = {"headers": dict(request.headers), "input": await request.json()}
    return web.json_response({"error": "invalid", **quoted}, status=400)


def _fixed(
    status: int = 200, text: str | bytes = "", headers: dict[str, str] | None = None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = text.encode() if isinstance(text, str) else text
        return web.Response(status=status, body=body, headers=headers)

    return answer


def _said(message: dict[str, Any], finish: str = "stop", **fields: Any) -> str:
    choices = [{"message": message, "finish_reason": finish}]
    return json.dumps({"choices": choices, **fields})


_HALF = {"content": "Half a caption about a"}
_HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
MOODS: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
    "429": _fixed(429, "slow down", {"Retry-After": "0.05"}),
    "429 dated": _fixed(429, "slow down", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    "429 silent": _fixed(429, "slow down"),
    "500": _fixed(500, json.dumps({"error": "CUDA out of memory"})),
    "503": _fixed(503, "starting", {"Retry-After": "0.01"}),
    "400": _fixed(400, json.dumps({"error": "the picture is too large"})),
    "redirect": _fixed(302, "", {"Location": "http://elsewhere.test/"}),
    "login": _fixed(307, "", {"Location": "https://me:secret-7@sso.test/login?token=secret-7"}),
    "html": _fixed(200, _HTML, {"Content-Type": "text/html"}),
    "html error": _fixed(502, _HTML, {"Content-Type": "text/html"}),
    "error in 200": _fixed(200, json.dumps({"error": {"message": "model overloaded"}})),
    "null": _fixed(200, json.dumps({"choices": [{"message": {"content": None}}]})),
    "list": _fixed(200, "[1, 2, 3]"),
    "filtered": _fixed(
        200,
        json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}),
    ),
    "empty choices": _fixed(200, json.dumps({"choices": []})),
    "error and half": _fixed(200, _said(_HALF, error={"message": "out of memory", "code": 502})),
    "429 in 200": _fixed(200, json.dumps({"error": {"message": "slow down", "code": 429}})),
    "aborted": _fixed(200, _said(_HALF, "abort")),
    "invalid utf-8": _fixed(
        200, _said({"content": "caf\u00e9"}).encode().replace(b"u00e9", b"\xe9")
    ),
    "deep": _fixed(200, "[" * 200_000),
    "no gzip": _fixed(200, "plain", {"Content-Encoding": "gzip"}),
    "refused": _fixed(200, _said({"content": None, "refusal": "I cannot describe people."})),
    "only reasoning": _fixed(
        200, _said({"content": None, "reasoning_content": "Let me look."}, "length")
    ),
    "402": _fixed(402, json.dumps({"error": {"message": "Insufficient credits"}})),
    "413": _fixed(413, "Request Entity Too Large"),
    "201 without text": _fixed(201, json.dumps({"id": "x", "status": "queued"})),
    "stream": _fixed(
        200, 'data: {"choices": []}\n\ndata: [DONE]\n', {"Content-Type": "text/event-stream"}
    ),
    "no pictures": _fixed(400, json.dumps({"error": "image input is not supported"})),
    "no letter": _fixed(200, _said({"content": " \n"})),
    "no quota": _fixed(429, json.dumps({"error": {"code": "insufficient_quota"}})),
    "echo": _echo,
    "no http": _no_http,
    "endless": _endless,
    "trickling": _trickling,
    "dropped": _dropped,
    "half": _half,
    "slow": _slow,
}


@contextmanager
def moody_server(key: str = "", models: tuple[str, ...] = ("tiny-vlm",)) -> Iterator[MoodyServer]:
    """Serve on loopback in a thread until the block ends."""
    server = MoodyServer(key=key, models=models)
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", server.complete)
        app.router.add_get("/v1/models", server.list_models)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"http://127.0.0.1:{port}/v1"
        started.set()
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
