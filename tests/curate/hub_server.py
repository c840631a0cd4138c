"""A local server that speaks the hub's file protocol, for repositories that lie in a folder.

    HEAD, GET /ORG/NAME/resolve/REVISION/FILE          with ETag and X-Repo-Commit
    GET /api/models/ORG/NAME/revision/REVISION         the list of files
    GET /api/models/ORG/NAME/tree/REVISION             the same with sizes
    GET /files/NAME                                    a plain download

A repository is a folder ORG/NAME of the root; every one has the revisions "main" and COMMIT.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_server(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(URL, paths asked for so far) of a server over `root`, until the block ends."""
    asked: list[str] = []

    class Handler(_Handler):
        pass

    Handler.root, Handler.asked = root, asked
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        return

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[0] == "files":
            self._file(self.root / "files" / parts[1], body)
        elif parts[:2] == ["api", "models"]:
            self._listing(parts, body)
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._resolve(parts, body)
        else:
            self._fail("RepoNotFound", body)

    def _resolve(self, parts: list[str], body: bool) -> None:
        repository = self.root / parts[0] / parts[1]
        if not repository.is_dir():
            return self._fail("RepoNotFound", body)
        if parts[3] not in ("main", COMMIT):
            return self._fail("RevisionNotFound", body)
        path = repository.joinpath(*parts[4:])
        if not path.is_file():
            return self._fail("EntryNotFound", body)
        return self._file(path, body)

    def _listing(self, parts: list[str], body: bool) -> None:
        repository = self.root / parts[2] / parts[3]
        if not repository.is_dir():
            return self._fail("RepoNotFound", body)
        revision = parts[5] if len(parts) > 5 else "main"
        if revision not in ("main", COMMIT):
            return self._fail("RevisionNotFound", body)
        files = sorted(path for path in repository.rglob("*") if path.is_file())
        names = [str(path.relative_to(repository)) for path in files]
        if len(parts) > 4 and parts[4] == "tree":
            answer: object = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                for name, path in zip(names, files, strict=True)
            ]
        else:
            answer = {
                "_id": "0",
                "id": f"{parts[2]}/{parts[3]}",
                "sha": COMMIT,
                "private": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": name} for name in names],
            }
        return self._send(200, json.dumps(answer).encode(), {}, body)

    def _file(self, path: Path, body: bool) -> None:
        if not path.is_file():
            return self._fail("EntryNotFound", body)
        headers = {"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT}
        return self._send(200, path.read_bytes(), headers, body)

    def _fail(self, code: str, body: bool) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code}
        self._send(404, json.dumps({"error": code}).encode(), headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
