"""
Servers that mail is forwarded to: the connections to them, and which of them are down.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from ..client import TLS, Client, Dialect, PoolLimits
from .forward_breaker import Breaker
from .forward_referral import Referral
from .forward_settings import ForwardSettings

#: Destinations that are remembered at a time, and connections kept to.
MOST_DESTINATIONS: Final = 1000


class Servers:
    """
    Those that have been sent to.
    """

    def __init__(self, settings: ForwardSettings, reactor: Any) -> None:
        self._settings, self._reactor = settings, reactor
        self._seconds = IReactorTime(reactor).seconds
        self._clients: dict[tuple[str, Dialect, TLS, bool], Client] = {}
        # Of those that we have parted with, until they have done what they were given.
        self._closing: set[Deferred[None]] = set()
        self._breakers: dict[str, Breaker] = {}

    def client(self, to: Referral, tls: TLS) -> Client:
        """
        The connections to one destination, encrypted as *tls* says.
        """
        key = to.destination, to.dialect, tls, to.is_referred
        client = self._clients.get(key)
        if client is None:
            settings = self._settings
            self._make_room()
            self._clients[key] = client = Client(
                self._reactor,
                to.destination,
                dialect=to.dialect,
                tls=tls,
                encryption=settings.encryption,
                # Our password is for those that the operator has named.
                login=None if to.is_referred else settings.login,
                limits=PoolLimits(connections=settings.connections),
            )
        return client

    def breaker(self, where: str) -> Breaker:
        """
        What is known of whether *where* is down.
        """
        breaker = self._breakers.get(where)
        if breaker is None:
            if len(self._breakers) >= MOST_DESTINATIONS:
                self._breakers = {at: each for at, each in self._breakers.items() if each.is_down}
            self._breakers[where] = breaker = Breaker(self._seconds, self._settings.retry)
        return breaker

    def close(self) -> Deferred[Any]:
        """
        Fires when all that was sent has its answer, and no connection is left.
        """
        clients, self._clients = self._clients, {}
        closing = [client.close() for client in clients.values()]
        return DeferredList([*closing, *self._closing])

    def _make_room(self) -> None:
        """
        Part with who has been known the longest: referrals may name ever new servers.
        """
        while len(self._clients) >= MOST_DESTINATIONS:
            oldest = next(iter(self._clients))
            closed = self._clients.pop(oldest).close()
            self._closing.add(closed)
            closed.addBoth(partial(self._parted, closed))

    def _parted(self, closed: Deferred[None], _: object) -> None:
        self._closing.discard(closed)
