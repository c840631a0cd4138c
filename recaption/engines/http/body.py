"""The JSON of a chat request, put together from parts: a picture is never escaped or copied twice.

Only the prompt, the seed and the picture differ between the rows of a request. Base64 needs no
escaping in JSON, so it goes between two halves that are made once.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from curate.served.address import Server
from recaption.engines.pictures import PictureFormat
from recaption.engines.protocol import CaptionRequest, Sampling


class ChatBodies:
    """Bodies of the rows of one request, as UTF-8 JSON."""

    def __init__(self, server: Server, request: CaptionRequest, picture_format: PictureFormat):
        turns = _json({"model": server.model})[:-1] + b',"messages":['
        if request.system:
            turns += _json({"role": "system", "content": request.system}) + b","
        address = f"data:image/{picture_format};base64,"
        self._before_picture = (
            turns + b'{"role":"user","content":[{"type":"image_url","image_url":{"url":"'
        ) + address.encode()
        self._before_text = turns + b'{"role":"user","content":'
        self._request = request
        self._prompts: dict[str, bytes] = {}
        fields = sampling_fields(server, request.sampling)
        self._seeded = "seed" in fields
        fields.pop("seed", None)
        self._end = b"," + _json({**fields, **server.extra_body})[1:-1]

    def body(self, row: int, picture: bytes | None) -> bytes:
        """The body of a row; `picture` is an encoded file, None for a row that is a text alone."""
        end = self._end
        if self._seeded:
            end += b',"seed":%d' % self._request.seeds[row]
        prompt = self._prompt(self._request.prompts[row])
        if picture is None:
            # A plain string, which servers of models without pictures understand as well.
            return b"".join((self._before_text, prompt, b"}]", end, b"}"))
        return b"".join(
            (
                self._before_picture,
                base64.b64encode(picture),
                b'"}},{"type":"text","text":',
                prompt,
                b"}]}]",
                end,
                b"}",
            )
        )

    def _prompt(self, prompt: str) -> bytes:
        # Most rows of a request share their prompt.
        encoded = self._prompts.get(prompt)
        if encoded is None:
            encoded = self._prompts[prompt] = _json(prompt)
        return encoded


def sampling_fields(server: Server, sampling: Sampling) -> dict[str, Any]:
    """Fields of the request; those outside of OpenAI's own set only where they matter.

    A field that the server refuses is left out only where the settings name it: the captions table
    records how words were drawn, and must not claim what was not sent.
    """
    fields: dict[str, Any] = {
        server.token_limit_field: sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.temperature > 0:
        # Sent at 1 as well: servers fill what is missing from the model's own defaults.
        fields |= {"seed": 0, "top_p": sampling.top_p}
        if sampling.top_k:
            fields["top_k"] = sampling.top_k
    if sampling.repetition_penalty != 1.0:
        fields["repetition_penalty"] = sampling.repetition_penalty
    return {name: value for name, value in fields.items() if name not in server.omit_fields}


def _json(value: Any) -> bytes:
    # ASCII with escapes: even a lone surrogate in an alt text makes valid UTF-8.
    return json.dumps(value, separators=(",", ":")).encode("ascii")
