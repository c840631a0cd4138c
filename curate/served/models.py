"""The models that a server offers."""

from __future__ import annotations

import asyncio
import json

import aiohttp

from curate.base.errors import ConfigError
from curate.served.address import Server
from curate.served.loop_thread import LoopThread
from curate.served.reply import read

_SECONDS = 30.0


def served_model(server: Server) -> str:
    """The only model that a server offers.

    Raises:
        ConfigError: nobody answers, or it offers none or several.
    """
    loop = LoopThread()
    try:
        names = loop.run(_model_names(server))
    finally:
        loop.close()
    if len(names) != 1:
        offered = ", ".join(names[:10]) or "none"
        raise ConfigError(
            f"The server at {server.base_url} offers {len(names)} models ({offered}); name the "
            f"one to use with {server.prefix}served_model."
        )
    return names[0]


async def _model_names(server: Server) -> list[str]:
    try:
        async with (
            asyncio.timeout(min(server.timeout, _SECONDS)),
            aiohttp.ClientSession(headers=server.headers()) as session,
            session.get(server.address("models"), allow_redirects=False) as response,
        ):
            status, raw = response.status, await read(response)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ConfigError(
            f"No model answers at {server.base_url} ({type(error).__name__}: {error})."
        ) from error
    if status in (401, 403):
        raise ConfigError(
            f"The server at {server.base_url} refuses access ({status}); name the environment "
            f"variable with its key with {server.prefix}api_key_env."
        )
    try:
        return [str(model["id"]) for model in json.loads(raw)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"The server at {server.base_url} does not list its models (status {status}); the URL "
            f"usually ends in /v1; or name the model with {server.prefix}served_model."
        ) from error
