"""A server of an opened directory in a thread, and its page in a browser."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from report_browser import Browser

from pipelines.view.app import build_app, loopback_hosts
from pipelines.view.opened import Opened, find

TOKEN = "a token of the tests"
SCRIPT = "<script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'>"
COLUMN = "50%, größte 🦊 <img src=x onerror='window.stolen = 1'>"
"""Texts of an attacker: an alt text, and the name of a score that is odd in every way."""


@dataclass
class Server:
    """A server that answers. `get` and `post` speak as the page does."""

    address: str
    opened: Opened

    def get(self, path: str, **parameters: Any) -> Any:
        """The value of a GET that succeeds."""
        answer = httpx.get(self.address + path, params=parameters, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, path: str) -> str:
        """The text of a GET that succeeds."""
        answer = httpx.get(self.address + path, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """The response of a POST with the page's token and origin."""
        given = {"X-Caplab-Token": TOKEN, "Origin": self.address, **headers}
        return httpx.post(self.address + path, json=body, headers=given, timeout=60)


@contextmanager
def served(directory: Path) -> Iterator[Server]:
    """Serve a directory on a free port."""
    opened = find(directory)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        app = build_app(opened, TOKEN, loopback_hosts(port))
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{port}", opened)
        finally:
            server.should_exit = True
            thread.join()
            opened.close()


@dataclass
class Page:
    """A server's page in the browser."""

    browser: Browser
    server: Server

    def go(self, place: str, width: int = 1280, dark: bool = False) -> None:
        """Load a place of the page, such as "#/pictures?sort=aesthetic", and wait until it shows.

        It is loaded anew, as by somebody who opens a link.
        """
        self.browser.visit("about:blank", width, dark)
        self.browser.complaints.clear()
        self.browser.visit(f"{self.server.address}/{place}", width, dark)
        self.until("document.querySelector('main .page')?.childElementCount")

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.browser.value(expression)

    def until(self, expression: str, seconds: float = 20) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        true = f"((found) => found instanceof Node || found)({expression})"
        while not (found := self.value(true)):
            if time.monotonic() > end:
                told = self.value("document.body.innerText")
                raise AssertionError(
                    f"{expression} did not come true; {self.browser.complaints}; the page: {told}"
                )
            time.sleep(0.03)
        return found

    def click(self, selector: str) -> None:
        """Click the first element of a selector once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.until(f"!!{found}")
        self.value(f"{found}.click()")

    def choose(self, selector: str, value: str) -> None:
        """Give an input or a select a value, as a person does."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.until(f"!!{found}")
        self.value(
            f"(() => {{ const at = {found}; at.value = {json.dumps(value)};"
            "for (const kind of ['input', 'change'])"
            " at.dispatchEvent(new Event(kind, {bubbles: true})) })()"
        )

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements of a selector."""
        found: list[str] = self.value(
            f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.innerText)"
        )
        return found

    def fits(self) -> bool:
        """Whether nothing reaches beyond the right edge of the view."""
        return bool(
            self.value(
                "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            )
        )
