"""URLs as people write them, taken apart and made safe to send."""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, urlsplit

from curate.base.reasons import FailureError, Reason

_PORTS = {"http": 80, "https": 443}
_LONGEST_URL = 8192  # characters; servers refuse longer request lines
# Everything that may stand in a path or query as it is; "%" because most URLs are quoted already.
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE = _PATH_SAFE + "?"


@dataclass(frozen=True)
class Target:
    """Where one request goes."""

    tls: bool
    host: str  # ASCII (IDNA), without brackets
    port: int
    path: str  # with query, quoted, ASCII

    @property
    def url(self) -> str:
        """The URL, quoted."""
        return f"{'https' if self.tls else 'http'}://{self.host_header}{self.path}"

    def at(self, path: str) -> Target:
        """Another path (quoted, with its query) on the same host."""
        return replace(self, path=path)

    @property
    def host_header(self) -> str:
        """The Host header: brackets around IPv6, the port unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = _PORTS["https" if self.tls else "http"]
        return host if self.port == default else f"{host}:{self.port}"


def parse_url(url: str) -> Target:
    """Take a URL apart; spaces and non-ASCII characters are quoted, as browsers do.

    User name, password and fragment are not sent.

    Raises:
        FailureError: bad_url or unsupported_scheme.
    """
    url = url.strip()
    if len(url) > _LONGEST_URL:
        raise FailureError(Reason.BAD_URL, f"{len(url):,} characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise FailureError(Reason.BAD_URL, error) from error
    if parts.scheme not in _PORTS:
        if not parts.scheme or not (parts.netloc or parts.path):
            raise FailureError(Reason.BAD_URL, url)
        raise FailureError(Reason.UNSUPPORTED_SCHEME, parts.scheme)
    if not host:
        raise FailureError(Reason.BAD_URL, url)
    path = quote(parts.path or "/", safe=_PATH_SAFE, errors="replace")
    if parts.query:
        path += "?" + quote(parts.query, safe=_QUERY_SAFE, errors="replace")
    return Target(parts.scheme == "https", _ascii_host(host), port or _PORTS[parts.scheme], path)


def _ascii_host(host: str) -> str:
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise FailureError(Reason.BAD_URL, f"host {host}") from error
    # A host with a space or a control character would end the Host header early.
    if not all(c.isalnum() or c in "-._:%" for c in ascii_host) or len(ascii_host) > 253:
        raise FailureError(Reason.BAD_URL, f"host {host}")
    return ascii_host
