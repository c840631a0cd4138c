"""Captions from an OpenAI-compatible server (vLLM, SGLang, any provider): one outcome a row.

Rows are asked by curate.served.client, as many at a time as `in_flight` says; a row that is lost
never ends the run.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from curate.base.errors import ConfigError
from curate.base.progress import advance
from curate.served.address import Server
from curate.served.client import ChatClient, impatient, trial_fault
from recaption.engines.http.body import ChatBodies
from recaption.engines.identity import Captioner
from recaption.engines.pictures import BrokenPictureError, PictureFormat, encode
from recaption.engines.pictures_ahead import PicturesAhead
from recaption.engines.protocol import (
    BROKEN_PICTURE,
    ENGINE_ERROR,
    CaptionOutcome,
    CaptionRequest,
    Sampling,
)
from recaption.engines.settings import EngineSettings, Shown, ShownSettings

logger = logging.getLogger(__name__)

_TRIAL = Sampling(max_new_tokens=16)


class HttpEngine:
    """A captioner behind an OpenAI-compatible server; see CaptionEngine.

    Connections stay open between calls; several threads may call at once and share the window.
    `latency_seconds` of an outcome is the time of the request that gave it, waits not included.
    """

    name = "http"
    revision = ""

    def __init__(
        self,
        server: Server,
        in_flight: int = 64,
        image_size: int = 512,
        picture_format: PictureFormat = "jpeg",
        trial: Sampling = _TRIAL,
        sees: bool = True,
    ) -> None:
        """Ask for one caption of a grey picture: a server that cannot give one shows here.

        Args:
            server: where and how.
            in_flight: requests at any time; no effect on the captions.
            image_size: longest side in pixels that is sent; 0 sends the stored size.
            picture_format: in which pictures are sent.
            trial: of that first caption; with all that later requests may hold, a field that the
                server refuses shows here as well.
            sees: whether pictures will be sent; without, the trial is a text alone.

        Raises:
            ConfigError: it gives none, in the server's own words. A filter that withholds one says
                nothing of other pictures, and is let pass.
        """
        self._server = server
        self._in_flight = in_flight
        self._image_size = image_size
        self._format = picture_format
        self._client = ChatClient(server, in_flight)
        # Decoders release the GIL, so pictures that need work get it on all cores.
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="encode")
        self._probe(trial, sees)

    @classmethod
    def opened(
        cls, settings: EngineSettings, captioner: Captioner, trial: Sampling, shown: Shown
    ) -> HttpEngine:
        """See recaption.engines.registry."""
        sees, shown = shown is not None, shown or ShownSettings()
        return cls(
            server_of(settings, captioner.model),
            in_flight=settings.in_flight,
            image_size=shown.image_size,
            picture_format=shown.image_format,
            trial=trial,
            sees=sees,
        )

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine."""
        return self._client.run(self._caption(request, self._server))

    def close(self) -> None:
        """Close all connections; an engine that is dropped closes them by itself."""
        self._client.close()
        self._threads.shutdown(wait=False)

    async def _caption(self, request: CaptionRequest, server: Server) -> list[CaptionOutcome]:
        outcomes: dict[int, CaptionOutcome] = {}
        bodies = ChatBodies(server, request, self._format)
        # All senders draw from one source, so a slow row holds up no other.
        source = PicturesAhead(request, self._threads, self._image_size, self._format)

        async def send() -> None:
            for row, waiting in source:
                try:
                    picture, size = (
                        await waiting if isinstance(waiting, asyncio.Future) else waiting
                    )
                    body = bodies.body(row, picture)
                    limit = request.sampling.max_new_tokens
                    outcomes[row] = await self._client.ask(body, limit, size, server)
                except BrokenPictureError as error:
                    outcomes[row] = CaptionOutcome(error=BROKEN_PICTURE, detail=str(error))
                except Exception as error:
                    # Whatever it was, it was this row's; the others are still to be captioned.
                    logger.exception("a row could not be captioned")
                    outcomes[row] = CaptionOutcome(error=ENGINE_ERROR, detail=type(error).__name__)
                advance()

        senders = min(self._in_flight, len(request))
        async with asyncio.TaskGroup() as group:
            for _ in range(senders):
                group.create_task(send())
        return [outcomes[row] for row in range(len(request))]

    def _probe(self, trial: Sampling, sees: bool) -> None:
        grey = encode(Image.new("RGB", (64, 64), (128, 128, 128)), self._format)
        request = CaptionRequest(
            [grey if sees else None],
            ["Describe this image." if sees else "Describe a red bicycle."],
            [0],
            trial,
        )
        server = impatient(self._server)
        outcome = self._client.run(self._caption(request, server))[0]
        if (fault := trial_fault(server, outcome, sees)) is not None:
            self.close()
            raise ConfigError(fault)


def server_of(settings: EngineSettings, model: str) -> Server:
    """The server that the settings name."""
    return Server(
        base_url=settings.captioner.rstrip("/"),
        model=model,
        api_key_env=settings.api_key_env,
        timeout=settings.timeout,
        attempts=settings.request_attempts,
        patience=settings.patience,
        token_limit_field=settings.token_limit_field,
        omit_fields=settings.omit_fields,
        extra_body=settings.extra_body,
    )
