"""A server of one opened directory, until it is ended."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import secrets
import socket
import threading
from collections.abc import Callable

from curate.base.errors import CaplabError, ConfigError
from pipelines.terminal.failures import Terminated
from pipelines.view.opened import Opened
from pipelines.view.settings import NEXT, PORT, ViewSettings

GRACE_SECONDS = 1


def serve(opened: Opened, settings: ViewSettings, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or a signal, the ways in which a page is meant to end.

    Args:
        ready: called with the page's address once it answers.

    Raises:
        ConfigError: the port is taken, or the host is one that others reach.
    """
    listening = listen(settings)  # before the imports: a wrong setting is answered at once
    import uvicorn

    from pipelines.view.app import build_app, loopback_hosts

    port = listening.getsockname()[1]
    hosts = None if settings.allow_remote else loopback_hosts(port)
    app = build_app(opened, secrets.token_urlsafe(24), hosts)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    if opened.dataset is not None:
        threading.Thread(target=_look_ahead, args=(opened,), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt, Terminated):
            # The kernel holds who comes before the loop runs.
            ready(f"http://{_bracketed(settings.host)}:{port}/")
            server.run(sockets=[listening])
    finally:
        opened.close()
        listening.close()


def _look_ahead(opened: Opened) -> None:
    """Begin with the copy of the tables while the browser starts; the page tells what is wrong."""
    with contextlib.suppress(CaplabError):
        _ = opened.tables


def listen(settings: ViewSettings) -> socket.socket:
    """A listening socket; see `serve` for errors."""
    host = settings.host
    if not is_loopback(host) and not settings.allow_remote:
        raise ConfigError(
            f"host = {host!r} would let other machines read and change this dataset, and there is "
            f"no password; leave it away, or say --allow-remote if that is meant."
        )
    given = settings.port
    for port in range(PORT, PORT + NEXT + 1) if given is None else (given,):
        try:
            return _listening(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(
                    f"{host}:{port} cannot be listened on ({error.strerror or error})."
                ) from error
    taken = f"Port {given} is" if given is not None else f"Ports {PORT} to {PORT + NEXT} are"
    raise ConfigError(
        f"{taken} taken, perhaps by another `caplab view`; give another with --port, or --port 0 "
        f"for a free one."
    )


def _listening(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
