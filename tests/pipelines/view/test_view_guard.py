"""What a page of somebody else may do to the server: nothing. Over real HTTP."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest
from view_page import TOKEN, Server

from pipelines.view.app import local_or_numbered

POST = "/api/nothing"
"""No such place: what the guard lets pass is answered with 404."""
GOOD = {"X-Caplab-Token": TOKEN, "Content-Type": "application/json"}


def raw(server: Server, request: bytes) -> bytes:
    """What is answered to bytes that no client would send."""
    where = urlsplit(server.address)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as line:
        line.sendall(request)
        answer = b""
        while part := line.recv(1 << 16):
            answer += part
    return answer


def test_only_the_printed_address_is_answered(server: Server) -> None:
    port = urlsplit(server.address).port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "[::1"):
        for path in ("/", "/api/about", "/thumbnail/x", "/static/view.css"):
            answer = httpx.get(server.address + path, headers={"Host": host})
            assert answer.status_code == 421, (host, path)
            assert TOKEN not in answer.text
    answer = httpx.get(server.address, headers={"Host": f"LOCALHOST:{port}"})
    assert answer.status_code == 200
    twice = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil\r\nConnection: close\r\n\r\n"
    assert raw(server, twice.encode()).split(b" ")[1] in (b"400", b"421")
    assert raw(server, b"GET / HTTP/1.0\r\n\r\n").split(b" ")[1] in (b"400", b"421")


def test_a_write_needs_token_origin_and_json(server: Server) -> None:
    def status(**headers: str | None) -> int:
        given = {**GOOD, "Origin": server.address, **headers}
        sent = {name: value for name, value in given.items() if value is not None}
        return httpx.post(server.address + POST, content=b"{}", headers=sent).status_code

    assert status() == 404  # let in, and nothing there
    assert status(**{"X-Caplab-Token": None}) == 403
    assert status(**{"X-Caplab-Token": "wrong"}) == 403
    assert status(Origin=None) == 403
    assert status(Origin="null") == 403
    assert status(Origin="http://evil.example") == 403
    assert status(Origin=server.address.replace("127.0.0.1", "localhost")) == 403
    assert status(**{"Sec-Fetch-Site": "cross-site"}) == 403
    assert status(**{"Content-Type": "text/plain"}) == 415
    assert status(**{"Content-Type": "application/x-www-form-urlencoded"}) == 415
    form = httpx.post(server.address + POST, data={"name": "x"})
    assert form.status_code == 403
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert httpx.request(method, server.address + "/api/about").status_code == 405


def test_other_pages_may_link_here_and_no_more(server: Server) -> None:
    def status(path: str, mode: str, site: str = "cross-site") -> int:
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
        return httpx.get(server.address + path, headers=headers).status_code

    assert status("/", "navigate") == 200
    assert status("/api/about", "no-cors") == 403
    assert status("/api/about", "cors", "same-site") == 403
    assert status("/api/about", "cors", "same-origin") == 200


def test_every_answer_has_the_headers_that_keep_a_page_to_itself(server: Server) -> None:
    for path in ("/", "/api/about", "/nowhere", "/static/js/app.js", "/api/order?sort=none"):
        headers = httpx.get(server.address + path).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/js/..%5c..%5capp.py",
        "/static/index.html%00.js",
        "/thumbnail/..%2f..%2fdataset.json",
        "/thumbnail/%2e%2e",
        "/picture/%2fetc%2fpasswd",
        "/picture/%00",
        "/picture/' OR 1=1 --",
        "/thumbnail/x?edge=161",
        "/thumbnail/x?edge=-1",
    ],
)
def test_a_path_leads_to_no_file_of_its_own(server: Server, path: str) -> None:
    port = urlsplit(server.address).port
    asked = f"GET {path.replace(' ', '%20')} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    answer = raw(server, f"{asked}Connection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in (b"400", b"404", b"409"), answer
    assert b"Traceback" not in answer
    assert b'{"error":"' in answer


def test_huge_and_odd_parameters_are_refused_with_a_sentence(server: Server) -> None:
    for query in (
        "where=" + "a" * 20_000,
        "sort=" + "a" * 15_000,
        "random=-1",
        "random=" + "9" * 5000,
        "side=both",
        "selection=..%2F..%2Fgood",
        'sort=aesthetic"%3B%20DROP%20TABLE%20sample',
    ):
        answer = httpx.get(f"{server.address}/api/order?{query}")
        assert answer.status_code in (400, 414), query[:40]
        assert answer.json()["error"].endswith(".")
    order = server.get("/api/order")["order"]
    for query in ("start=-1", "count=0", "count=100000", "start=1e3", "show=nothing", "start=0x1"):
        assert httpx.get(f"{server.address}/api/window?order={order}&{query}").status_code == 400
    beyond = server.get("/api/window", order=order, start=2**52)
    assert beyond["rows"] == []


def test_a_server_for_other_machines_answers_addresses_and_no_foreign_name() -> None:
    assert local_or_numbered("192.168.1.7:8765")
    assert local_or_numbered("[fe80::1]:8765")
    assert local_or_numbered("localhost:1")
    for host in ("evil.example:8765", "evil.example", "", "127.0.0.1.evil.example", "[", "a:b:c"):
        assert not local_or_numbered(host)


def test_sql_of_the_page_reads_the_tables_and_no_other_file(server: Server) -> None:
    import duckdb

    cursor = server.opened.cursor()
    total = server.get("/api/about")["stored"]
    assert cursor.execute("SELECT count(*) FROM sample").fetchall() == [(total,)]
    for sql in (
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY sample TO '/tmp/stolen.csv'",
        "ATTACH '/tmp/other.duckdb'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "CREATE TABLE copied.more (i INT)",
    ):
        with pytest.raises(duckdb.Error):
            cursor.execute(sql)
