"""What one URL may do to us, tried against a real server that tries it."""

import ipaddress
import socket
import time
import urllib.request
from dataclasses import replace

import pytest
from hostile_server import hostile_server, picture

from curate.addresses import is_public
from curate.reasons import FailureError, Reason
from curate.safe_http import HttpLimits, SafeOpener

LIMITS = HttpLimits(
    timeout=0.5,
    total_timeout=1.0,
    max_bytes=100_000,
    retries=0,
    user_agent="CaptionLab (+https://caption-lab.example/about)",
    disallowed_directives=frozenset({"noai", "noindex"}),
    allow_private=True,
)


@pytest.fixture(scope="module")
def server():
    with hostile_server() as running:
        yield running


def reason_of(url: str, limits: HttpLimits = LIMITS) -> Reason:
    with pytest.raises(FailureError) as caught:
        SafeOpener(limits).fetch(url)
    return caught.value.failure.reason


def test_a_good_picture_comes_through_unchanged(server):
    assert SafeOpener(LIMITS).fetch(server.url("good/3")).read() == picture(seed=3)


def test_a_chunked_answer_comes_through_unchanged(server):
    assert SafeOpener(LIMITS).fetch(server.url("chunked")).read() == picture()


def test_a_redirect_is_followed(server):
    assert SafeOpener(LIMITS).fetch(server.url("moved")).read() == picture(seed=7)


def test_spaces_and_letters_beyond_ascii_in_a_url_are_quoted(server):
    SafeOpener(LIMITS).fetch(server.url("good/café au lait?größe=1 0"))
    assert server.requests["/good/caf%C3%A9%20au%20lait?gr%C3%B6%C3%9Fe=1%200"] == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", Reason.HTTP_404),
        ("forbidden", Reason.HTTP_403),
        ("gone", Reason.HTTP_410),
        ("teapot", Reason.HTTP_4XX),
        ("busy", Reason.HTTP_429),
        ("error", Reason.HTTP_5XX),
        ("nothing", Reason.HTTP_OTHER),
        ("loop", Reason.TOO_MANY_REDIRECTS),
        ("to_file", Reason.UNSUPPORTED_SCHEME),
        ("empty", Reason.EMPTY_BODY),
        ("announces_much", Reason.TOO_LARGE),
        ("endless", Reason.TOO_LARGE),
        ("trickle", Reason.TIMEOUT),
        ("trickle_headers", Reason.TIMEOUT),
        ("silent", Reason.TIMEOUT),
        ("cut", Reason.INCOMPLETE_BODY),
        ("garbage", Reason.BAD_RESPONSE),
        ("hangs_up", Reason.CONNECTION_LOST),
        ("noai", Reason.DISALLOWED_BY_HEADER),
        ("noai_for_us", Reason.DISALLOWED_BY_HEADER),
    ],
)
def test_each_misbehaviour_has_its_reason(server, path, reason):
    assert reason_of(server.url(path)) is reason


def test_a_trickling_answer_ends_with_the_total_time_though_no_read_ever_waits_long(server):
    begin = time.monotonic()
    reason_of(server.url("trickle_headers"), replace(LIMITS, timeout=30, total_timeout=0.5))
    assert time.monotonic() - begin < 10


def test_a_robots_directive_for_another_crawler_is_not_for_us(server):
    assert SafeOpener(LIMITS).fetch(server.url("noai_for_others")).read() == picture()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", Reason.UNSUPPORTED_SCHEME),
        ("ftp://127.0.0.1/x", Reason.UNSUPPORTED_SCHEME),
        ("data:image/png;base64,xxxx", Reason.UNSUPPORTED_SCHEME),
        ("picture.jpg", Reason.BAD_URL),
        ("http://", Reason.BAD_URL),
        ("http://[::1/x", Reason.BAD_URL),
        ("http://host:99999/x", Reason.BAD_URL),
        ("http://a b/x", Reason.BAD_URL),
        ("http://a\r\nX-Injected: 1/x", Reason.BAD_URL),
    ],
)
def test_what_is_no_web_address_is_refused_unseen(url, reason):
    assert reason_of(url) is reason


def test_a_line_break_in_a_path_cannot_add_a_header(server):
    assert SafeOpener(LIMITS).fetch(server.url("good/1%0d%0aX: y\x01")).read() == picture()


def test_a_port_where_nobody_listens_refuses():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert reason_of(f"http://127.0.0.1:{port}/") is Reason.CONNECTION_REFUSED


def test_plain_http_behind_https_is_a_tls_error(server):
    assert reason_of(server.url("good").replace("http:", "https:")) is Reason.TLS


def test_a_name_that_does_not_exist_is_a_dns_error():
    # RFC 6761: names under .invalid never resolve.
    assert reason_of("http://no-such-host.invalid/") is Reason.DNS


def test_a_resolver_that_hangs_holds_nobody_longer_than_the_timeout():
    def hanging(host: str, port: int) -> list[str]:
        time.sleep(5)
        return ["127.0.0.1"]

    begin = time.monotonic()
    with pytest.raises(FailureError) as caught:
        SafeOpener(LIMITS, hanging).fetch("http://slow.test/")
    assert caught.value.failure.reason is Reason.DNS
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433"])
def test_loopback_under_any_spelling_is_refused(server, host):
    url = f"http://{host}:{server.server_address[1]}/good"
    assert reason_of(url, replace(LIMITS, allow_private=False)) is Reason.PRIVATE_ADDRESS


@pytest.mark.parametrize("path", ["to_metadata", "to_other_loopback"])
def test_a_redirect_into_a_private_network_is_refused_at_that_hop(server, path):
    only_this_server = replace(LIMITS, allow_private=False, allowed_networks=("127.0.0.1/32",))
    assert SafeOpener(only_this_server).fetch(server.url("good")).read()
    assert reason_of(server.url(path), only_this_server) is Reason.PRIVATE_ADDRESS


def test_a_name_is_resolved_once_and_the_checked_address_is_the_one_connected_to(server):
    asked = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    port = server.server_address[1]
    limits = replace(LIMITS, allow_private=False, allowed_networks=("127.0.0.1/32",))
    opener = SafeOpener(limits, rebinding)
    for _ in range(3):
        assert opener.fetch(f"http://shop.test:{port}/good").read() == picture()
    assert asked == ["shop.test"]


def test_a_name_with_private_addresses_only_is_refused():
    opener = SafeOpener(HttpLimits(retries=0), lambda host, port: ["10.0.0.1", "127.0.0.1"])
    with pytest.raises(FailureError) as caught:
        opener.fetch("http://mixed.test/")
    assert caught.value.failure.reason is Reason.PRIVATE_ADDRESS


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.100.100.200", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False),
        ("64:ff9b::a9fe:a9fe", False),
    ],
)
def test_only_unicast_addresses_of_the_public_internet_are_public(address, public):
    assert is_public(ipaddress.ip_address(address)) is public


def test_an_error_that_may_pass_is_tried_again_and_a_permanent_one_is_not(server):
    patient = SafeOpener(replace(LIMITS, retries=2, total_timeout=5))
    assert patient.fetch(server.url("once_busy/1")).read() == picture(seed=1)
    assert server.requests["/once_busy/1"] == 2
    with pytest.raises(FailureError):
        patient.fetch(server.url("forbidden/again"))
    assert server.requests["/forbidden/again"] == 1


def test_our_own_name_is_sent_whatever_the_request_says(server):
    server.user_agents.clear()
    request = urllib.request.Request(server.url("good"), headers={"User-Agent": "Firefox/72.0"})
    SafeOpener(LIMITS).open(request).read()
    assert server.user_agents == {"CaptionLab (+https://caption-lab.example/about)"}


def test_proxies_of_the_environment_are_ignored(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert SafeOpener(LIMITS).fetch(server.url("good")).read() == picture()
