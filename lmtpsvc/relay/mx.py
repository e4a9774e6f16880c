"""
Routes from the DNS: which servers take the mail for a domain of the world (RFC 5321 §5.1).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.names import dns
from twisted.names.error import DNSNameError
from zope.interface import implementer

from ..client import TLS
from ..delivery.patterns import fold
from ..domains import ascii_domain
from ..errors import PermanentFailure, TemporaryFailure
from ..outgoing.destination import is_host
from .routes import Hop, IRouter, Route

#: So many servers of one domain are tried in a round.
MOST_HOPS: Final = 5
PORT: Final = 25

_log = Logger(namespace="lmtpsvc.relay")


@implementer(IRouter)
class MXRoutes:
    """
    Looks up the MX records of a domain with *resolver* (`twisted.internet.interfaces.IResolver`).

    Servers with the same preference are tried in an order of chance, made with *shuffle*.  A domain
    without MX is its own server, if it has an address.  A server that is called *hostname* is us, and
    we do not send to ourselves or to those behind us.  *tls* says when to encrypt: certificates of
    servers that are found in the DNS prove nothing, so that they are not looked at by default.
    """

    def __init__(
        self,
        resolver: Any,
        hostname: str,
        *,
        tls: TLS = TLS.MAY,
        port: int = PORT,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        self._resolver, self._hostname = resolver, hostname.lower().rstrip(".")
        self._tls, self._port, self._shuffle = tls, port, shuffle

    def route(self, domain: str) -> Route | Deferred[Route]:
        if domain.startswith("["):
            return self._to([_literal(domain)])
        name = ascii_domain(domain)
        if not _is_name(name):
            raise PermanentFailure("There can be no such domain", (1, 2))
        return Deferred.fromCoroutine(self._look_up(name))

    async def _look_up(self, name: str) -> Route:
        records = await self._ask(self._resolver.lookupMailExchange, name, dns.MX)
        servers = [(record.payload.preference, _host(record.payload.name)) for record in records]
        if not servers:
            if not await self._has_address(name):
                raise PermanentFailure("The domain has no mail server", (1, 2))
            return self._to([name])
        if not any(host for _, host in servers):
            # RFC 7505: the null MX.
            raise PermanentFailure("The domain takes no mail", (1, 10), 556)
        # What can be no host, such as a URL, is not in the way of the others.
        known = [(preference, host) for preference, host in servers if is_host(host)]
        if not known:
            raise PermanentFailure("The mail servers of the domain have no good names", (4, 4))
        hosts = self._in_order(known)
        if not hosts:
            raise PermanentFailure("Mail for the domain loops back to us", (4, 6))
        return self._to(hosts)

    def _in_order(self, servers: Sequence[tuple[int, str]]) -> list[str]:
        """
        Hosts by preference, those behind us left out (RFC 5321 §5.1).
        """
        ours = [preference for preference, host in servers if host == self._hostname]
        groups: dict[int, list[str]] = {}
        for preference, host in sorted(servers):
            if not ours or preference < min(ours):
                groups.setdefault(preference, []).append(host)
        for group in groups.values():
            self._shuffle(group)
        return list(dict.fromkeys(host for group in groups.values() for host in group))

    async def _has_address(self, name: str) -> bool:
        for look_up, kind in (
            (self._resolver.lookupAddress, dns.A),
            (self._resolver.lookupIPV6Address, dns.AAAA),
        ):
            if await self._ask(look_up, name, kind):
                return True
        return False

    async def _ask(self, look_up: Callable[[str], Any], name: str, kind: int) -> list[Any]:
        """
        The records of one *kind*.

        Raises:
            PermanentFailure: There is no such domain.
            TemporaryFailure: Nobody knows.
        """
        try:
            answers, _, _ = await maybeDeferred(look_up, name)
        except DNSNameError as error:
            raise PermanentFailure("There is no such domain", (1, 2)) from error
        except Exception as error:
            _log.info("{name}: {error!r}", name=name, error=error)
            raise TemporaryFailure("The domain cannot be looked up", (4, 3)) from error
        return [record for record in answers if record.type == kind]

    def _to(self, hosts: Sequence[str]) -> Route:
        # The name is the same in whatever order equal ones come.
        return Route(
            "mx:" + ",".join(sorted(hosts)),
            tuple(
                Hop(
                    f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}",
                    tls=self._tls,
                )
                for host in hosts[:MOST_HOPS]
            ),
        )


def _host(name: dns.Name) -> str:
    """
    The host that a record names; the DNS has any octets.
    """
    return name.name.decode("ascii", "replace").lower().rstrip(".")


def _literal(domain: str) -> str:
    """
    The address in a literal (RFC 5321 §4.1.3).
    """
    words = domain[1:-1]
    if words.lower().startswith("ipv6:"):
        words = words[5:]
    try:
        return str(ip_address(words))
    except ValueError as error:
        raise PermanentFailure("There can be no such address", (1, 2)) from error


def _is_name(name: str) -> bool:
    if not name.isascii() or len(name) > 253:
        return False
    try:
        return fold(name) == name.lower() and not name.startswith("*.")
    except ValueError:
        return False
