"""What one URL may do to us, tried against a real server that tries it."""

import ipaddress
import socket
import time
from dataclasses import replace

import pytest

from curate.base.errors import ConfigError
from curate.base.reasons import FailureError, Reason
from curate.download.addresses import is_public
from curate.download.safe_http import HttpLimits, SafeClient
from tests.curate.download.hostile_server import hostile_server, picture

LIMITS = HttpLimits(
    timeout=0.5,
    total_timeout=1.0,
    max_bytes=100_000,
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
        SafeClient(limits).fetch(url)
    return caught.value.failure.reason


def test_a_good_picture_comes_through_unchanged(server):
    assert SafeClient(LIMITS).fetch(server.url("good/3")).content == picture(seed=3)


def test_a_chunked_answer_comes_through_unchanged(server):
    assert SafeClient(LIMITS).fetch(server.url("chunked")).content == picture()


def test_a_redirect_is_followed(server):
    assert SafeClient(LIMITS).fetch(server.url("moved")).content == picture(seed=7)


def test_spaces_and_letters_beyond_ascii_in_a_url_are_quoted(server):
    SafeClient(LIMITS).fetch(server.url("good/café au lait?größe=1 0"))
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
    assert SafeClient(LIMITS).fetch(server.url("noai_for_others")).content == picture()


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
    assert SafeClient(LIMITS).fetch(server.url("good/1%0d%0aX: y\x01")).content == picture()


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
        SafeClient(LIMITS, hanging).fetch("http://slow.test/")
    assert caught.value.failure.reason is Reason.DNS
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433"])
def test_loopback_under_any_spelling_is_refused(server, host):
    url = f"http://{host}:{server.server_address[1]}/good"
    assert reason_of(url, replace(LIMITS, allow_private=False)) is Reason.PRIVATE_ADDRESS


@pytest.mark.parametrize("path", ["to_metadata", "to_other_loopback"])
def test_a_redirect_into_a_private_network_is_refused_at_that_hop(server, path):
    only_this_server = replace(LIMITS, allow_private=False, allowed_networks=("127.0.0.1/32",))
    assert SafeClient(only_this_server).fetch(server.url("good")).content
    assert reason_of(server.url(path), only_this_server) is Reason.PRIVATE_ADDRESS


def test_a_name_is_resolved_once_and_the_checked_address_is_the_one_connected_to(server):
    asked = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    port = server.server_address[1]
    limits = replace(LIMITS, allow_private=False, allowed_networks=("127.0.0.1/32",))
    opener = SafeClient(limits, rebinding)
    for _ in range(3):
        assert opener.fetch(f"http://shop.test:{port}/good").content == picture()
    assert asked == ["shop.test"]


def test_a_name_with_private_addresses_only_is_refused():
    opener = SafeClient(HttpLimits(), lambda host, port: ["10.0.0.1", "127.0.0.1"])
    with pytest.raises(FailureError) as caught:
        opener.fetch("http://mixed.test/")
    assert caught.value.failure.reason is Reason.PRIVATE_ADDRESS


PUBLIC = """8.8.8.8 1.1.1.1 11.0.0.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1
    192.167.1.1 198.17.1.1 198.20.0.1 223.255.255.255 168.63.129.17 2606:4700:4700::1111
    2a00:1450:4001:81b::200e 2001:200::1 2001:db7::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8
    2606:4700::5efe:8.8.8.8"""
INTERNAL = """0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.0.1 168.63.129.16
    169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.170 192.0.0.192
    192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
    239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:192.0.0.1
    ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8 64:ff9b::a9fe:a9fe 64:ff9b::10.0.0.1 64:ff9b:1::8.8.8.8
    64:ff9b:1:ffff::1 100::1 100:0:0:1::1 2001::1 2001:0:808:808::f5ff:fffe 2001:2::1 2001:10::1
    2001:20::1 2001:30::1 2001:db8::1 2002:7f00:1:: 2002:808:808::1 3fff::1 3fff:fff::1 5f00::1
    4000::1 fc00::1 fd00:ec2::254 fe80::1 fe80::5efe:10.0.0.1 fec0::1 ff02::1 ff0e::1
    2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:169.254.169.254"""


@pytest.mark.parametrize("address", (PUBLIC + " " + INTERNAL).split())
def test_only_unicast_addresses_of_the_public_internet_are_public(monkeypatch, address):
    # What ipaddress says of an address differs between versions of Python: nothing may ask it.
    asked = property(lambda self: pytest.fail("a version of Python decides"))
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        for name in ("is_global", "is_private", "is_reserved", "is_multicast", "ipv4_mapped"):
            monkeypatch.setattr(kind, name, asked, raising=False)
    assert is_public(ipaddress.ip_address(address)) is (address in PUBLIC.split())


def test_we_say_who_we_are(server):
    server.user_agents.clear()
    SafeClient(LIMITS).fetch(server.url("good"))
    assert server.user_agents == {"CaptionLab (+https://caption-lab.example/about)"}


def test_a_connection_carries_the_next_url_of_its_host(server):
    client = SafeClient(LIMITS)
    client.fetch(server.url("kept/1"))
    before = server.connections
    assert client.fetch(server.url("kept/2")).content == picture(seed=2)
    with pytest.raises(FailureError, match="http_404"):
        client.fetch(server.url("kept_missing"))
    assert client.fetch(server.url("kept/3")).content == picture(seed=3)
    assert server.connections == before


def test_a_kept_connection_that_the_server_closed_is_opened_anew(server):
    client = SafeClient(LIMITS)
    for number in range(4):
        assert client.fetch(server.url(f"kept_then_closed/{number}")).content == picture(
            seed=number
        )


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one(server):
    client = SafeClient(LIMITS)
    for number in range(4):
        assert client.fetch(server.url(f"kept_with_more/{number}")).content == picture(seed=number)
        time.sleep(0.1)  # so that it is there


def test_ipv6_loopback_is_fetched_where_it_is_allowed_and_refused_where_not():
    try:
        running = hostile_server(address="::1")
        with running as server:
            url = server.url("good/3", host="[::1]")
            assert SafeClient(LIMITS).fetch(url).content == picture(seed=3)
            assert reason_of(url, replace(LIMITS, allow_private=False)) is Reason.PRIVATE_ADDRESS
    except OSError:
        pytest.skip("this machine has no ::1")


def test_a_proxy_is_asked_for_the_whole_url_and_private_addresses_stay_refused(server):
    proxy = f"http://127.0.0.1:{server.server_address[1]}"
    limits = replace(LIMITS, allow_private=False, proxy=proxy)
    # The hostile server takes the absolute URL for a path that it does not know.
    assert reason_of("http://pictures.example/1.jpg", limits) is Reason.HTTP_404
    assert server.requests["http://pictures.example/1.jpg"] == 1
    for spelling in ("127.0.0.1", "127.1", "2130706433", "0x7f.1", "127.0.0.1.", "[::1]"):
        assert reason_of(f"http://{spelling}/1.jpg", limits) is Reason.PRIVATE_ADDRESS
    # It knows no CONNECT either: what a proxy refuses is a connection that failed.
    assert reason_of("https://pictures.example/1.jpg", limits) is Reason.CONNECTION_LOST


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://proxy:1080", "http://proxy", "x"])
def test_a_proxy_that_is_none_is_refused_before_any_work(proxy):
    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        SafeClient(replace(LIMITS, proxy=proxy))


def test_proxies_of_the_environment_are_ignored(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert SafeClient(LIMITS).fetch(server.url("good")).content == picture()
