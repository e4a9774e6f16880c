"""
Routes: which servers take the mail for a domain, in which order they are tried, and how they are
spoken to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from ..client import TLS, Dialect, Encryption, Login
from ..delivery.patterns import Patterns
from ..envelope import Mailbox
from ..errors import PermanentFailure


@frozen
class Hop:
    """
    One server: *to* as `lmtpsvc.client.Client` takes it (``mx.example.org:25``, ``unix:/run/lmtp.sock``),
    which *dialect* it speaks, and how that is protected.
    """

    to: str
    dialect: Dialect = Dialect.SMTP
    tls: TLS = TLS.MAY
    encryption: Encryption | None = None
    login: Login | None = None


@frozen
class Route:
    """
    Servers that are equal to us, to be tried in this order.

    Domains whose routes have the same *name* share transactions, connections, and the opinion that
    their servers are down.
    """

    name: str
    hops: tuple[Hop, ...]


class IRouter(Interface):
    """
    Knows where mail goes.
    """

    def route(domain: str) -> Route | Deferred[Route]:
        """
        Say which servers take mail for *domain*: in lower case, an internationalised one in
        Unicode or as DNS has it, an address literal with its brackets; empty for the bare
        ``<Postmaster>``.

        Fails:
            PermanentFailure: There can be no mail for it.
            TemporaryFailure: It cannot be known now.
        """


@implementer(IRouter)
class ConfiguredRoutes:
    """
    Routes for patterns of domains (``example.org``, ``*.example.org``), the most exact first; all
    other domains are left to *others*, or refused if that is None.

    Raises:
        ValueError: A pattern is none, or there twice.
    """

    def __init__(
        self, pairs: Iterable[tuple[str, Route]], others: IRouter | Route | None = None
    ) -> None:
        self._patterns: Patterns[Route] = Patterns(pairs)
        self._others = others

    def route(self, domain: str) -> Route | Deferred[Route]:
        found = self._patterns.of_domain(Mailbox("", domain))
        if found is not None:
            return found
        if isinstance(self._others, Route):
            return self._others
        if self._others is not None:
            return self._others.route(domain)
        raise PermanentFailure("There is no route to that domain", (1, 2))


def to_hops(hops: Sequence[Hop]) -> Route:
    """
    The route to servers that an operator has named.
    """
    return Route(",".join(hop.to for hop in hops), tuple(hops))
