"""
Networks: the hosts that an operator means, in his words.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

#: What stands for clients on UNIX sockets.
LOCAL: Final = "local"
# ::ffff:0:0/96: how an IPv4 client shows on a socket that takes both (RFC 4291 §2.5.5.2).
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


class Networks:
    """
    The hosts of *words*: networks (``10.0.0.0/8``, ``2001:db8::/32``), addresses, and ``local`` for
    UNIX sockets.

    Raises:
        ValueError: A word is none of these; the text is one line.
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.words = tuple(words)
        self._local = LOCAL in self.words
        self._networks = tuple(_network(each) for each in self.words if each != LOCAL)
        # The same few hosts connect again and again.
        self._contains = lru_cache(maxsize=1024)(self._look_up)

    def __contains__(self, host: str) -> bool:
        """
        Whether *host*, an IP address or ``local``, is one of them.  What is neither is not.
        """
        return bool(self.words) and self._contains(host)

    def _look_up(self, host: str) -> bool:
        if host == LOCAL:
            return self._local
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        return any(address in network for network in self._networks)


def _network(words: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(words, strict=False)
    except ValueError:
        raise ValueError(
            f"{words!r} is no network; write 10.0.0.0/8, 192.0.2.7, 2001:db8::/32, or local for"
            " UNIX sockets"
        ) from None
    address, slash, _ = words.partition("/")
    if slash and ip_address(address) != network.network_address:
        # What was meant, the host or its network?
        raise ValueError(f"{words!r} is a host and a network; write {address} or {network}")
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        # Hosts are compared in the shorter form.
        mapped = IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    return network
