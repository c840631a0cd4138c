"""Why a row of the input list has no picture: the closed list, in three classes.

Every row that is not stored carries exactly one of these in `samples.reason`. An *error that may
pass* is worth another try later (`caplab curate --retry-failed`), a *permanent error* is not, and a
*policy* reason means that the settings, or the picture's owner, did not want it stored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum, auto


class ReasonClass(StrEnum):
    """What to do about a failed row."""

    MAY_PASS = "error that may pass"
    PERMANENT = "permanent error"
    POLICY = "policy"


_MAY_PASS, _PERMANENT, _POLICY = ReasonClass


class Reason(StrEnum):
    """One reason; the value, its name in small letters, is what stands in the samples table."""

    meaning: str
    reason_class: ReasonClass

    def __new__(cls, value: str, reason_class: ReasonClass, meaning: str) -> Reason:
        """Make a member: its name in the table, its class, one line for a person."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.reason_class = reason_class
        member.meaning = meaning
        return member

    @classmethod
    def named(cls, value: str) -> Reason:
        """The member that stands in the table as `value`; ValueError for any other text."""
        member = cls._value2member_map_.get(value)
        if not isinstance(member, cls):
            raise ValueError(f"{value!r} is no reason")
        return member

    @property
    def may_pass(self) -> bool:
        """Whether another try, now or later, can succeed."""
        return self.reason_class is ReasonClass.MAY_PASS

    # The row itself.
    NO_URL = auto(), _PERMANENT, "the row has no URL"
    BAD_URL = auto(), _PERMANENT, "the URL is not a URL"
    UNSUPPORTED_SCHEME = auto(), _POLICY, "the URL, or a redirect, is neither http nor https"

    # What was taken in: a line, a tar or a folder that is broken itself.
    UNREADABLE_ROW = auto(), _PERMANENT, "the line or record of the input could not be read"
    DAMAGED_SOURCE = (
        auto(),
        _PERMANENT,
        "an input file is damaged or cut short here; this row stands for what is lost behind it",
    )
    NO_PICTURE = auto(), _PERMANENT, "the sample came without a picture"
    NOT_DOWNLOADED = (
        auto(),
        _PERMANENT,
        "the run that made this input had not got the picture; its words are in detail",
    )
    UNREADABLE_FILE = auto(), _MAY_PASS, "a local or stored file could not be opened or read"

    # The way to the server.
    PRIVATE_ADDRESS = (
        auto(),
        _POLICY,
        "the host, or a redirect's host, is a private, loopback or otherwise internal address",
    )
    DNS = auto(), _MAY_PASS, "the host name could not be resolved"
    CONNECTION_REFUSED = auto(), _MAY_PASS, "the host refused to connect"
    CONNECTION_LOST = auto(), _MAY_PASS, "the connection broke, or the host was unreachable"
    TIMEOUT = auto(), _MAY_PASS, "the host was too slow or silent"
    HOST_BUDGET = (
        auto(),
        _MAY_PASS,
        "not tried: the host had used up its time budget (host_budget) by failing or being slow",
    )
    TLS = auto(), _PERMANENT, "the certificate or the TLS handshake is not valid"
    BAD_RESPONSE = auto(), _PERMANENT, "the answer was not valid HTTP, or not packed as it says"

    # The server's answer. The status code that people look for has a name of its own.
    HTTP_403 = auto(), _PERMANENT, "the server forbids the URL"
    HTTP_404 = auto(), _PERMANENT, "the server does not know the URL"
    HTTP_410 = auto(), _PERMANENT, "the picture is gone for good"
    HTTP_429 = auto(), _MAY_PASS, "the server asked for fewer requests"
    HTTP_4XX = auto(), _PERMANENT, "another client error; the code is in detail"
    HTTP_5XX = auto(), _MAY_PASS, "a server error; the code is in detail"
    HTTP_OTHER = auto(), _PERMANENT, "a status that brings no picture"
    TOO_MANY_REDIRECTS = auto(), _PERMANENT, "a redirect chain or loop"
    DISALLOWED_BY_HEADER = auto(), _POLICY, "the X-Robots-Tag header asks not to use the picture"
    DISALLOWED_BY_ROBOTS_TXT = auto(), _POLICY, "the site's robots.txt asks us not to fetch the URL"
    ROBOTS_TXT_UNREACHABLE = (
        auto(),
        _MAY_PASS,
        "the site's robots.txt could not be read, so nothing was fetched (RFC 9309, 2.3.1.4)",
    )
    TOO_LARGE = auto(), _PERMANENT, "the file is larger than max_bytes"
    INCOMPLETE_BODY = auto(), _MAY_PASS, "the answer ended before its announced length"
    UNSUPPORTED_ENCODING = (
        auto(),
        _PERMANENT,
        "the body is packed (br, zstd, compress) though we asked that it is not",
    )
    EMPTY_BODY = auto(), _PERMANENT, "the answer has no bytes"
    HASH_MISMATCH = (
        auto(),
        _PERMANENT,
        "the file is not the one that the list's md5, sha256 or sha512 names",
    )

    LISTED_HASH = (
        auto(),
        _POLICY,
        "the file or the picture is on the list of what is never stored (hash_list); nothing of it "
        "was written, and detail says by which hash it was known",
    )

    # The file.
    NOT_AN_IMAGE = auto(), _PERMANENT, "the bytes are no picture format we read"
    UNSUPPORTED_FORMAT = (
        auto(),
        _PERMANENT,
        "a picture in a format that is not read (HEIC, JPEG XL, SVG, JPEG 2000, ICO, PSD, ...), "
        "which detail and original_format name",
    )
    BROKEN_IMAGE = auto(), _PERMANENT, "the picture is broken or cut short"
    UNSUPPORTED_IMAGE = (
        auto(),
        _PERMANENT,
        "the picture's float pixels fit no known range of brightness",
    )
    TOO_MANY_PIXELS = auto(), _PERMANENT, "more pixels than max_pixels"
    TOO_SMALL = auto(), _POLICY, "the shorter side is below min_side"
    ASPECT = auto(), _POLICY, "longer side / shorter side is above max_aspect"

    UNEXPECTED = auto(), _MAY_PASS, "an error that this program did not foresee"


_LONGEST_DETAIL = 300  # characters; a hostile server must not fill the table


@dataclass(frozen=True)
class Failure:
    """One row's failure: the reason, the error's own words, and what is known of the file."""

    reason: Reason
    detail: str = ""
    original_width: int | None = None  # pixels, upright
    original_height: int | None = None
    original_format: str | None = None  # sniffed
    original_bytes: int | None = None
    sha256: str | None = None  # of the whole file, where it was fetched whole


class FailureError(Exception):
    """Raised where a row fails."""

    def __init__(self, reason: Reason, detail: object = "", size: tuple[int, int] | None = None):
        width, height = size or (None, None)
        shown = printable(str(detail))[:_LONGEST_DETAIL]
        self.failure = Failure(reason, shown, width, height)
        super().__init__(f"{reason.value}: {shown}")


_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}\b")


def printable(text: str) -> str:
    """`text` with control characters, line breaks and lone surrogates replaced by "?"."""
    return "".join(c if c.isprintable() else "?" for c in without_addresses(text))


def without_addresses(text: str) -> str:
    """An error's words without the places of objects in memory, so that equal runs say the same."""
    return _ADDRESS.sub("", text)


def words(error: Exception) -> str:
    """An error in one line: its type and its first line."""
    lines = without_addresses(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ")
