"""Which addresses a stranger's URL may reach, and a resolver that asks each name once."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

from curate.base.reasons import FailureError, Reason
from curate.download.wire import Deadline

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Our own table and not ipaddress's: what `is_global` says changed with Python 3.11.10, 3.12.4, 3.13
# and will again, and it knows nothing of the forms that carry an IPv4 address. From IANA's
# special-purpose address registries (iana.org/assignments/iana-ipv4-special-registry and
# iana-ipv6-special-registry, both as of 2025), every block that is not "globally reachable", and
# multicast. Exceptions inside 192.0.0.0/24 and 2001::/23 are relays and anycast services: no
# pictures live there.
_INTERNAL_IPV4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this host, this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # behind a carrier's NAT; Alibaba's metadata
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # public by the registry, but Azure's platform inside Azure
            "169.254.0.0/16",  # link-local: where most clouds keep their metadata
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays, deprecated (RFC 7526)
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
# All unicast addresses that were ever given out (iana.org/assignments/ipv6-address-space). Outside
# lie loopback, unique local, link-local, multicast, IPv4-compatible (::/96), IPv4-translated
# (::ffff:0:0:0/96, RFC 2765), local NAT64 (64:ff9b:1::/48, RFC 8215) and what nobody uses yet.
_UNICAST_IPV6 = ipaddress.IPv6Network("2000::/3")
_INTERNAL_IPV6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # IETF protocol assignments: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, deprecated (RFC 7526)
            "3fff::/20",  # documentation
        ),
    )
)
# Prefixes whose last 32 bits are an IPv4 address that a packet really reaches.
_CARRIERS = (
    ipaddress.IPv6Network("::ffff:0:0/96"),  # IPv4-mapped: the socket speaks IPv4
    ipaddress.IPv6Network("64:ff9b::/96"),  # NAT64 (RFC 6052): how networks without IPv4 see it
)
_ISATAP = (0x00005EFE, 0x02005EFE)  # bits 64 to 95 before an IPv4 address (RFC 5214, 6.1)
_MOST_ADDRESSES = 4  # tried for one name
_MOST_NAMES = 20_000  # remembered by one resolver


def is_public(address: Address) -> bool:
    """Whether `address` is a unicast address of the public internet, by IANA's registries.

    False for loopback, private, link-local (where clouds keep their metadata), multicast,
    reserved, documentation and transition addresses (6to4, Teredo, IPv4-compatible and
    IPv4-translated). An IPv4-mapped or NAT64 address is judged by the IPv4 address in it. The
    answer is the same on every version of Python.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _INTERNAL_IPV4)
    inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in _CARRIERS):
        return is_public(inner)
    if address not in _UNICAST_IPV6 or any(address in network for network in _INTERNAL_IPV6):
        return False
    isatap = int(address) >> 32 & 0xFFFFFFFF in _ISATAP
    return is_public(inner) if isatap else True


def _literal(host: str) -> Address | None:
    """The address that stands in a URL in place of a name, or None for a name."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    with contextlib.suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(host.removesuffix(".")))
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

        An address counts in every spelling that resolvers take: 127.1, 0x7f000001, 2130706433.

        Raises:
            FailureError: private_address.
        """
        address = _literal(host)
        if address is not None and not self._may_reach(str(address)):
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
