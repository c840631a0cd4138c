"""A folder of pictures on real loopback HTTP, for the demo and for tests.

Works for any folder, the synthetic web or photographs. Files only: a directory, a missing file or a
path that leaves the folder is a 404.
"""

import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

_CONTENT_TYPES = {".webp": "image/webp", ".avif": "image/avif", ".parquet": "application/x-parquet"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open for the next picture
    disable_nagle_algorithm = True
    timeout = 30

    def __init__(self, root: Path, *rest: object) -> None:
        self.root = root
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        path = (self.root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not path.is_relative_to(self.root) or not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = path.read_bytes()
        guessed = mimetypes.guess_type(path.name)[0]
        kind = _CONTENT_TYPES.get(path.suffix.lower(), guessed or "application/octet-stream")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet: thousands of requests would bury the progress bars."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # a downloader opens hundreds of connections at once

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is the client's affair."""


@contextmanager
def serve(directory: Path | str, port: int = 0, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve a folder for the length of a `with` block; yields the base URL, without a slash.

    port 0 takes a free one. Raises OSError where the port is taken, ValueError for no folder.
    """
    root = Path(directory).resolve()
    if not root.is_dir():
        raise ValueError(f"there is no folder {root} to serve.")
    server = _Server((host, port), partial(_Handler, root))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
