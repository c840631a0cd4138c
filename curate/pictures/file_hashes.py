"""Whether a file is the one that the list means, where it gives an md5, sha256 or sha512."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from curate.base.reasons import FailureError, Reason

# The strongest first; hex digits of each.
HASHES: Mapping[str, int] = {"sha512": 128, "sha256": 64, "md5": 32}


def verify(content: bytes, expected: Mapping[str, str | None]) -> None:
    """Compare a file with the strongest hash that is given; without any, every file passes.

    Args:
        expected: hex digits by the name of the hash, in either case.

    Raises:
        FailureError: hash_mismatch; also where the list's hash is none.
    """
    for name, digits in HASHES.items():
        wanted = (expected.get(name) or "").strip().lower()
        if not wanted:
            continue
        if len(wanted) != digits or not set(wanted) <= set("0123456789abcdef"):
            said = f"the list's {name} is not {digits} hex digits"
            raise FailureError(Reason.HASH_MISMATCH, said)
        found = hashlib.new(name, content, usedforsecurity=False).hexdigest()
        if found != wanted:
            raise FailureError(Reason.HASH_MISMATCH, f"{name} is {found}, not {wanted}")
        return
