"""Which addresses a stranger's URL may reach, and a resolver that asks each name once."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

from curate.download.wire import Deadline
from curate.reasons import FailureError, Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Addresses that are public by the registry but answer only inside a cloud: Azure's platform
# address (learn.microsoft.com, "What is IP address 168.63.129.16?").
_INTERNAL = frozenset({ipaddress.ip_address("168.63.129.16")})
# IPv6 prefixes that carry an IPv4 address in their last 32 bits: NAT64 (RFC 6052).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_MOST_ADDRESSES = 4  # tried for one name
_MOST_NAMES = 20_000  # remembered by one resolver


def is_public(address: Address) -> bool:
    """Whether `address` is a unicast address of the public internet.

    False for loopback, private, link-local (where clouds keep their metadata), multicast,
    reserved and unspecified addresses, also where one is wrapped in an IPv6 address (mapped,
    6to4, Teredo, NAT64).
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _carried_ipv4(address)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and address not in _INTERNAL


def _carried_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def lookup(host: str, port: int) -> list[str]:
    """All addresses of `host` from the system's resolver, in its order, without repeats."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Resolver:
    """Resolves each name once and hands out only addresses that may be reached.

    The system's resolver cannot be interrupted, so each question runs in a thread of its own and
    the asker waits no longer than its deadline. An answer that may pass (a temporary failure) is
    forgotten, so that a retry asks again. Cost: one short thread a name.
    """

    def __init__(
        self,
        resolve: Callable[[str, int], list[str]],
        allow_private: bool,
        allowed_networks: tuple[str, ...] = (),
    ) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._networks = [ipaddress.ip_network(network) for network in allowed_networks]
        self._answers: dict[str, Future[list[str]]] = {}
        self._lock = threading.Lock()

    def allowed_addresses(self, host: str, port: int, deadline: Deadline) -> list[str]:
        """Addresses of `host` to connect to, at least one.

        Raises:
            FailureError: dns (no address, or no answer in time) or private_address.
        """
        addresses = self._addresses(host, port, deadline)
        allowed = [text for text in addresses if self._may_reach(text)]
        if not allowed:
            raise FailureError(Reason.PRIVATE_ADDRESS, f"{host} is {', '.join(sorted(addresses))}")
        return allowed[:_MOST_ADDRESSES]

    def refuse_private_literal(self, host: str) -> None:
        """Refuse a host that is an address itself and may not be reached; names pass unseen.

        Raises:
            FailureError: private_address.
        """
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host)
            if not self._may_reach(str(address)):
                raise FailureError(Reason.PRIVATE_ADDRESS, host)

    def _may_reach(self, text: str) -> bool:
        # A scope such as fe80::1%eth0 belongs to no public address; the check ignores it.
        address = ipaddress.ip_address(text.split("%")[0])
        if self._allow_private or is_public(address):
            return True
        return any(address in network for network in self._networks)

    def _addresses(self, host: str, port: int, deadline: Deadline) -> list[str]:
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        future = self._ask(host, port)
        try:
            return future.result(timeout=deadline.step())
        except TimeoutError as error:
            raise FailureError(Reason.DNS, f"no answer for {host} in time") from error
        except (OSError, UnicodeError) as error:
            if getattr(error, "errno", None) != socket.EAI_NONAME:
                self._forget(host, future)
            raise FailureError(Reason.DNS, f"{host}: {error}") from error

    def _ask(self, host: str, port: int) -> Future[list[str]]:
        with self._lock:
            if host in self._answers:
                return self._answers[host]
            if len(self._answers) >= _MOST_NAMES:
                self._answers.clear()
            future: Future[list[str]] = Future()
            self._answers[host] = future
        threading.Thread(target=self._answer, args=(host, port, future), daemon=True).start()
        return future

    def _answer(self, host: str, port: int, future: Future[list[str]]) -> None:
        try:
            addresses = self._resolve(host, port)
            if not addresses:
                raise OSError(f"{host} has no address")
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(addresses)

    def _forget(self, host: str, future: Future[list[str]]) -> None:
        with self._lock:
            if self._answers.get(host) is future:
                del self._answers[host]
