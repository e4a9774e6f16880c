"""
Where the DNS is asked.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.names.client import Resolver
from twisted.names.dns import Message

#: Which name servers there are.
RESOLV_CONF: Final = "/etc/resolv.conf"


class SystemResolver:
    """
    Asks the name servers of this machine.  They are looked for when somebody asks: who sends all
    mail to a smart host needs none.
    """

    def __init__(self, reactor: Any, path: str = RESOLV_CONF) -> None:
        self._reactor, self._path = reactor, path

    def lookupMailExchange(self, name: str) -> Deferred[Any]:
        return self._servers.lookupMailExchange(name)  # type: ignore[no-any-return]

    def lookupAddress(self, name: str) -> Deferred[Any]:
        return self._servers.lookupAddress(name)  # type: ignore[no-any-return]

    def lookupIPV6Address(self, name: str) -> Deferred[Any]:
        return self._servers.lookupIPV6Address(name)  # type: ignore[no-any-return]

    @cached_property
    def _servers(self) -> Any:
        return _Servers(resolv=self._path, reactor=self._reactor)


class _Servers(Resolver):
    def queryUDP(self, queries: Any, timeout: Any = None) -> Deferred[Any]:
        # Where there is no socket to be had (EMFILE), this raises, and whoever asks for the same name
        # afterwards would wait for ever for the one who was first.
        return maybeDeferred(super().queryUDP, queries, timeout)

    def queryTCP(self, queries: Any, timeout: int = 10) -> Deferred[Any]:
        # Twisted asks over TCP whenever an answer is cut off: without end, if that one is, too.
        answering: Deferred[Any] = super().queryTCP(queries, timeout)
        return answering.addCallback(_whole)


def _whole(answer: Message) -> Message:
    if answer.trunc:
        raise OSError("an answer that is cut off where nothing need be")
    return answer
