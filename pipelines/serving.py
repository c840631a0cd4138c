"""`caplab serve-captioner`: load a captioner, serve it until a signal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from recaption.captioning.settings import with_engine
from recaption.engines.caption_server import ServerLimits, bound, serve
from recaption.engines.http.address import Server
from recaption.engines.registry import identify, open_engine
from recaption.engines.serve_settings import ServeSettings


def serve_captioner(settings: ServeSettings, say: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT; `say` is told the address once requests are taken.

    Raises:
        ConfigError: no such captioner, or the address cannot be listened on.
        StageError: the captioner broke down while it served.
    """
    chosen = with_engine(settings, image_size=settings.image_size)
    captioner = identify(chosen)
    name = settings.name or captioner.short_name
    key = Server("http://localhost/v1", api_key_env=settings.client_key_env).key()
    limits = ServerLimits(
        batch_size=settings.batch_size,
        max_wait=settings.max_wait_ms / 1000,
        most_waiting=settings.max_waiting,
        most_tokens=settings.max_tokens,
        most_bytes=int(settings.max_body_mib * (1 << 20)),
        allow_urls=settings.allow_urls,
        stop_seconds=settings.stop_seconds,
    )
    if captioner.engine == "http":
        # Its requests leave side by side anyway, so a batch is as large as its window.
        limits = replace(limits, batch_size=settings.in_flight)
    with bound(settings.host, settings.port) as listening:
        engine = open_engine(chosen, captioner)
        asyncio.run(
            serve(engine, name, limits, listening, key, lambda url: say(f"{name} at {url}"))
        )
