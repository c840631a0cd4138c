"""One connection, many answers: none of them may be taken for another URL's."""

import gzip
import hashlib
import zlib
from dataclasses import replace

import pytest

from curate.base.reasons import FailureError, Reason
from curate.download.safe_http import HttpLimits, SafeClient
from tests.curate.download.hostile_server import picture
from tests.curate.download.scripted_server import Turns, answer, chunked, head, scripted_server
from tests.curate.download.test_fetch import SETTINGS, make_dataset, run

LIMITS = HttpLimits(timeout=1.0, total_timeout=2.0, max_bytes=20_000, allow_private=True)
GOOD, OTHER = picture(seed=1), picture(seed=2)
EARLY = head("103 Early Hints", "Link: </a.css>; rel=preload")
PROCESSING = head("102 Processing")


@pytest.fixture(scope="module")
def server():
    with scripted_server({"/good": [answer(GOOD)]}) as running:
        yield running


@pytest.fixture
def client():
    client = SafeClient(LIMITS)
    yield client
    client.close()


def str_or_nothing(value: object) -> str | None:
    """The name of a parameter in a test's name; bytes have none."""
    return str(value) if isinstance(value, str) else ""


def outcome_of(client: SafeClient, url: str) -> tuple[bytes | None, Reason | None]:
    """The body, or why there is none."""
    try:
        return client.fetch(url).content, None
    except FailureError as error:
        return None, error.failure.reason


def reason_of(client: SafeClient, url: str) -> Reason | None:
    return outcome_of(client, url)[1]


def test_every_stored_row_has_its_own_bytes_whatever_comes_before_the_final_answer(tmp_path):
    before = {
        "none": [],
        "early": [EARLY, 0.03],
        "several": [head("100 Continue"), PROCESSING, 0.02, EARLY, 0.01],
        "together": [EARLY + PROCESSING + EARLY],
        "claims": [head("103 Early Hints", "Content-Length: 400", "Connection: keep-alive")],
        "unknown": [head("199 Miscellaneous"), 0.01],
    }
    pictures = {f"/{kind}/{n}": picture(seed=n) for n in range(4) for kind in before}
    with scripted_server(
        {path: [*before[path.split("/")[1]], answer(body)] for path, body in pictures.items()}
    ) as server:
        dataset = make_dataset(tmp_path, [server.url(path) for path in pictures])
        run(dataset, SETTINGS.model_copy(update={"host_connections": 1}))
        assert server.connections == 1
    stored = dataset.read_table("samples", "00000").column("sha256").to_pylist()
    assert stored == [hashlib.sha256(body).hexdigest() for body in pictures.values()]


LEFT_OVERS = {
    "another_answer": [answer(GOOD) + answer(OTHER)],
    "bytes_behind_the_length": [answer(GOOD) + b"\r\nmore"],
    "not_found_with_two_answers": [answer(b"", status="404 Not Found") + answer(OTHER)],
    "no_content_with_content": [head("204 No Content") + answer(OTHER)],
    "not_modified_with_content": [head("304 Not Modified", "Content-Length: 5"), 0.02, b"hello"],
    "reset_content": [head("205 Reset Content", "Content-Length: 0") + answer(OTHER)],
    "redirect_with_a_late_body": [
        head("302 Found", "Location: /good", "Content-Length: 9"),
        0.03,
        answer(OTHER),
    ],
    "redirect_without_its_body": [head("302 Found", "Location: /good", "Content-Length: 9")],
    "redirect_with_chunks": [
        head("302 Found", "Location: /good", "Transfer-Encoding: chunked"),
        chunked(answer(OTHER)) + b"\r\n",
    ],
    "redirect_longer_than_it_says": [
        answer(b"", "Location: /good", status="302 Found") + answer(OTHER)
    ],
    "interim_and_nothing_more": [EARLY, None],
    "interim_with_content": [EARLY + b"hello" + answer(OTHER)],
    "switched_protocols": [head("101 Switching Protocols", "Upgrade: x") + answer(OTHER)],
    "larger_than_allowed": [answer(bytes(20_001)) + answer(OTHER)],
    "chunks_larger_than_allowed": [
        head("200 OK", "Transfer-Encoding: chunked"),
        chunked(bytes(30_000)) + b"\r\n" + answer(OTHER),
    ],
    "disallowed": [answer(OTHER, "X-Robots-Tag: noai"), answer(OTHER)],
    "two_ends": [
        head("200 OK", "Content-Length: 4", "Transfer-Encoding: chunked") + chunked(GOOD) + b"\r\n",
        answer(OTHER),
    ],
    "chunked_in_http_1_0": [
        head("200 OK", "Keep-Alive: 5", "Transfer-Encoding: chunked").replace(b"1.1", b"1.0", 1),
        chunked(GOOD) + b"\r\n" + answer(OTHER),
    ],
    "a_header_that_hides_the_next": [
        head("200 OK", "Content-Length: 4", "no header", "Transfer-Encoding: chunked"),
        answer(OTHER),
    ],
}


@pytest.mark.parametrize("name", LEFT_OVERS)
def test_nothing_that_is_left_of_an_answer_passes_for_the_next_one(server, name):
    client = SafeClient(replace(LIMITS, timeout=0.5, disallowed_directives=frozenset({"noai"})))
    server.scripts[f"/{name}"] = LEFT_OVERS[name]
    for _ in range(2):
        content, reason = outcome_of(client, server.url(f"/{name}"))
        assert content != OTHER
        assert reason is not Reason.TIMEOUT
        # At once, with nothing in between.
        assert client.fetch(server.url("/good")).content == GOOD
    client.close()


@pytest.mark.parametrize(
    "script",
    [
        [answer(GOOD)],
        [head("200 OK", f"Content-Length: {len(GOOD)}", f"Content-Length: {len(GOOD)}") + GOOD],
        [head("200 OK", "Transfer-Encoding: Chunked") + chunked(GOOD) + b"X-Sum: 5\r\n\r\n"],
        [answer(b"not here", status="404 Not Found")],
        [answer(b"over there", "Location: /good", status="301 Moved Permanently")],
        [PROCESSING, answer(b"<p>wait", status="503 Service Unavailable")],
    ],
)
def test_a_connection_whose_answer_was_read_to_its_end_carries_the_next_url(client, server, script):
    server.scripts["/kept"] = script
    client.fetch(server.url("/good"))
    before = server.connections
    for _ in range(3):
        content, reason = outcome_of(client, server.url("/kept"))
        assert content == GOOD or reason in (Reason.HTTP_404, Reason.HTTP_5XX)
    assert server.connections == before


def test_a_host_that_sends_more_than_its_answers_gets_a_new_connection_each_time(client, server):
    server.scripts["/more"] = [answer(GOOD) + answer(OTHER)]
    before = server.connections
    for _ in range(3):
        assert client.fetch(server.url("/more")).content == GOOD
        assert client.fetch(server.url("/good")).content == GOOD
    assert server.connections == before + 6


@pytest.mark.parametrize("late", [b"garbage\r\n\r\n", head("408 Request Timeout"), None])
def test_what_came_late_over_a_kept_connection_is_not_held_against_the_next_url(
    client, server, late
):
    client.fetch(server.url("/good"))
    server.requests.clear()
    # Sent when the second request is there, so that no look at the connection can show it before.
    server.scripts["/second"] = Turns([late, None], [answer(OTHER)])
    assert client.fetch(server.url("/second")).content == OTHER
    assert server.requests["/second"] == 2


LENGTH = len(GOOD)


@pytest.mark.parametrize(
    ("headers", "read"),
    [
        ([f"Content-Length: {LENGTH}"], True),
        ([f"Content-Length: {LENGTH}", f"Content-Length: {LENGTH}"], True),
        ([f"Content-Length: {LENGTH}, {LENGTH}"], True),
        ([f"Content-Length:   {LENGTH}  "], True),
        (["Content-Length: 4", f"Content-Length: {LENGTH}"], False),
        ([f"Content-Length: {LENGTH}", "Content-Length: 4"], False),
        ([f"Content-Length: {LENGTH}, 4"], False),
        ([f"Content-Length: +{LENGTH}"], False),
        ([f"Content-Length: -{LENGTH}"], False),
        ([f"Content-Length: {LENGTH // 10}_{LENGTH % 10}"], False),
        ([f"Content-Length: {LENGTH} bytes"], False),
        (["Content-Length: 0x10"], False),
        (["Content-Length: ٣٤"], False),
        (["Content-Length:"], False),
        ([f"Content-Length: {LENGTH}", "Transfer-Encoding: identity"], True),
        ([f"Content-Length: {LENGTH}", "Transfer-Encoding: gzip, chunked"], False),
        (["Transfer-Encoding: chunked, gzip"], False),
    ],
)
def test_a_length_counts_if_it_is_one_and_the_only_one(client, server, headers, read):
    server.scripts["/length"] = [head("200 OK", *headers) + GOOD, None]
    if read:
        assert client.fetch(server.url("/length")).content == GOOD
    else:
        assert reason_of(client, server.url("/length")) is Reason.BAD_RESPONSE


def test_a_length_beyond_all_numbers_is_too_large(client, server):
    server.scripts["/vast"] = [head("200 OK", f"Content-Length: {'9' * 40}")]
    assert reason_of(client, server.url("/vast")) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "location",
    ["/größe/Å…\u00a0ü", "/caf%C3%A9", "//127.0.0.1:PORT/größe", "?größe=é", "größe?a=b c#d"],
)
def test_a_redirect_to_letters_beyond_ascii_is_followed(client, server, location):
    port = server.url("").rsplit(":")[-1]
    server.scripts["/from/here"] = [
        answer(b"", f"Location: {location.replace('PORT', port)}", status="302 Found")
    ]
    server.requests.clear()
    reason_of(client, server.url("/from/here"))
    (asked,) = [path for path in server.requests if path != "/from/here"]
    expected = {
        "/größe/Å…\u00a0ü": "/gr%C3%B6%C3%9Fe/%C3%85%E2%80%A6%C2%A0%C3%BC",
        "/caf%C3%A9": "/caf%C3%A9",
        "//127.0.0.1:PORT/größe": "/gr%C3%B6%C3%9Fe",
        "?größe=é": "/from/here?gr%C3%B6%C3%9Fe=%C3%A9",
        "größe?a=b c#d": "/from/gr%C3%B6%C3%9Fe?a=b%20c",
    }
    assert asked == expected[location]


def test_a_redirect_in_another_encoding_keeps_its_bytes(client, server):
    raw = answer(b"", "Location: /caf~.jpg", status="302 Found").replace(b"~", b"\xe9")
    server.scripts |= {"/latin": [raw], "/caf%E9.jpg": [answer(OTHER)]}
    assert client.fetch(server.url("/latin")).content == OTHER


def _raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


HALVES = gzip.compress(GOOD[:500]) + gzip.compress(GOOD[500:])


@pytest.mark.parametrize(
    ("coding", "body"),
    ids=str_or_nothing,
    argvalues=[
        ("gzip", gzip.compress(GOOD)),
        ("x-gzip", gzip.compress(GOOD) + b"padding"),
        ("GZip", HALVES),
        ("deflate", zlib.compress(GOOD)),
        ("deflate", _raw_deflate(GOOD)),
        ("deflate, gzip", gzip.compress(zlib.compress(GOOD))),
        ("identity, gzip", gzip.compress(GOOD)),
        ("identity", GOOD),
        ("utf-8", GOOD),
        # Servers say it of pictures that they did not pack.
        ("gzip", GOOD),
        ("deflate", GOOD),
        ("br", GOOD),
        ("gzip, gzip", gzip.compress(GOOD)),
    ],
)
def test_a_packed_body_is_unpacked_though_nobody_asked_for_it(client, server, coding, body):
    server.scripts["/packed"] = [answer(body, f"Content-Encoding: {coding}")]
    assert client.fetch(server.url("/packed")).content == GOOD


def _packed(content: bytes, times: int) -> bytes:
    return content if times == 0 else gzip.compress(_packed(content, times - 1))


BOMB = gzip.compress(bytes(10_000_000))


@pytest.mark.parametrize(
    ("coding", "body", "reason"),
    ids=str_or_nothing,
    argvalues=[
        ("gzip", BOMB, Reason.TOO_LARGE),
        ("gzip, gzip", gzip.compress(BOMB), Reason.TOO_LARGE),
        ("gzip", gzip.compress(b"") * 900, Reason.TOO_LARGE),
        ("gzip", gzip.compress(GOOD)[:-20], Reason.INCOMPLETE_BODY),
        ("deflate", zlib.compress(GOOD)[:-20], Reason.INCOMPLETE_BODY),
        ("gzip", gzip.compress(GOOD)[:-8] + bytes(8), Reason.BAD_RESPONSE),
        ("gzip", b"<p>no picture</p>", Reason.BAD_RESPONSE),
        ("gzip", gzip.compress(b""), Reason.EMPTY_BODY),
        ("gzip", b"", Reason.EMPTY_BODY),
        ("br", b"\x0b\x02\x80abc\x03", Reason.UNSUPPORTED_ENCODING),
        ("gzip, zstd", b"\x28\xb5\x2f\xfd", Reason.UNSUPPORTED_ENCODING),
        (", ".join(["gzip"] * 5), _packed(GOOD, 5), Reason.UNSUPPORTED_ENCODING),
    ],
)
def test_a_body_that_cannot_be_unpacked_within_the_limit_has_its_reason(
    client, server, coding, body, reason
):
    server.scripts["/packed"] = [answer(body, f"Content-Encoding: {coding}")]
    assert len(body) < LIMITS.max_bytes
    assert reason_of(client, server.url("/packed")) is reason


WHOLE = f"Content-Range: bytes 0-{LENGTH - 1}/{LENGTH}"


@pytest.mark.parametrize(
    ("status", "header", "reason"),
    [
        ("203 Non-Authoritative Information", "X: y", None),
        ("206 Partial Content", WHOLE, None),
        ("206 Partial Content", "Content-Range: bytes 0-99/1000", Reason.HTTP_OTHER),
        ("206 Partial Content", f"Content-Range: bytes 0-{LENGTH - 1}/*", Reason.HTTP_OTHER),
        ("206 Partial Content", f"Content-Range: bytes 1-{LENGTH}/{LENGTH}", Reason.HTTP_OTHER),
        ("206 Partial Content", "Content-Range: bytes 0-99999/100000", Reason.INCOMPLETE_BODY),
        ("206 Partial Content", "X: y", Reason.HTTP_OTHER),
        ("202 Accepted", "X: y", Reason.HTTP_OTHER),
    ],
)
def test_203_and_a_206_that_is_the_whole_bring_the_picture(client, server, status, header, reason):
    server.scripts["/status"] = [answer(GOOD, header, status=status)]
    if reason is None:
        assert client.fetch(server.url("/status")).content == GOOD
    else:
        assert reason_of(client, server.url("/status")) is reason
