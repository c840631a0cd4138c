"""An OpenAI-compatible server: where it is, how patiently it is asked, what it does not take."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from curate.base.errors import ConfigError

TokenLimitField = Literal["max_tokens", "max_completion_tokens"]
OmittableField = Literal["temperature", "top_p", "top_k", "seed", "repetition_penalty"]

# A parameter of the address with such a name is a key, and addresses are stored.
_SECRET_NAME = re.compile(r"(^|[-_.])(key|apikey|token|secret|password|sig|signature|code)$", re.I)


@dataclass(frozen=True)
class Server:
    """Where requests go and how patiently.

    Attributes:
        base_url: such as http://localhost:8000/v1; a query (?api-version=...) is kept.
        model: its name on the server.
        api_key_env: NAME of the environment variable with the key; empty sends none.
        timeout: seconds one request may take, its answer's last byte included.
        attempts: tries of one request that meets faults (5xx, HTML, a dropped connection).
        patience: seconds that one row goes on asking a server that says it is busy (429), and
            seconds after its last answer that a server which takes no connections is waited for.
        first_wait: seconds before the second try; doubles with each try, plus up to as much again
            at random, so that many clients do not come back at once.
        token_limit_field: what the server calls the limit of output tokens.
        omit_fields: sampling fields that the server refuses and that are never sent.
        extra_body: further fields of every request, such as {"reasoning_effort": "low"}.
        prefix: of the names that these have among the settings, for messages.
    """

    base_url: str
    model: str = ""
    api_key_env: str = ""
    timeout: float = 120.0
    attempts: int = 6
    patience: float = 600.0
    first_wait: float = 0.5
    token_limit_field: TokenLimitField = "max_tokens"
    omit_fields: tuple[OmittableField, ...] = ()
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""

    def __post_init__(self) -> None:
        check_address(self.base_url)
        check_extra_body(self.extra_body)

    def address(self, endpoint: str) -> str:
        """The full URL of an endpoint such as "chat/completions"."""
        parts = urlsplit(self.base_url)
        return parts._replace(path=f"{parts.path.rstrip('/')}/{endpoint}").geturl()

    def key(self) -> str:
        """The key; empty where none is sent.

        Raises:
            ConfigError: the environment variable is not set, or holds what no header can.
        """
        if not self.api_key_env:
            return ""
        # A key from a file often ends with a line break, which no header may hold.
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigError(
                f"The environment variable {self.api_key_env}, named by {self.prefix}api_key_env, "
                f"is not set."
            )
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"The key in the environment variable {self.api_key_env} holds characters that "
                f"cannot be sent in a header."
            )
        return key

    def headers(self) -> dict[str, str]:
        """Request headers.

        Raises:
            ConfigError: as `key`.
        """
        key = self.key()
        return {"Authorization": f"Bearer {key}"} if key else {}


def check_address(base_url: str) -> None:
    """Refuse an address that cannot work or that holds a secret.

    Raises:
        ConfigError: one sentence; it never repeats a secret.
    """
    try:
        parts = urlsplit(base_url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if "@" in parts.netloc:
        raise ConfigError(
            "The server's URL holds a password, which would be stored; remove it and name an "
            "environment variable that holds the key with api_key_env."
        )
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if _SECRET_NAME.search(name):
            raise ConfigError(
                f"The server's URL holds a key (its parameter {name!r}), which would be stored; "
                f"remove it and name an environment variable that holds the key with api_key_env."
            )
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise ConfigError(
            "The server's URL must be of the form http://HOST:PORT/v1 or https://HOST/v1."
        )
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise ConfigError(
            "The server's URL must be the base URL: leave out its end /chat/completions."
        )


def check_key_name(name: str) -> None:
    """Refuse what cannot be the name of an environment variable; it may be the key itself.

    Raises:
        ConfigError: one sentence; it never repeats what was given.
    """
    if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ConfigError(
            "api_key_env must be the NAME of an environment variable (letters, digits and _); "
            "put the key into that variable."
        )


def check_extra_body(extra_body: Mapping[str, Any]) -> None:
    """Refuse further request fields that would contradict what is recorded with a caption.

    Raises:
        ConfigError: a field that has a setting of its own, a stream, or no JSON.
    """
    own = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p"}
    own |= {"top_k", "seed", "repetition_penalty", "stream", "n"}
    for name in extra_body:
        if name in own:
            raise ConfigError(f"extra_body cannot hold {name!r}: it is set by other settings.")
    try:
        json.dumps(dict(extra_body), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"extra_body cannot be sent as JSON ({error}).") from error
