"""
Endpoints that a proxy is in front of: the header of the PROXY protocol comes first.

It is read below everything else, TLS included, because that is where proxies put it; the connection
is then handed on as if it had just been made, and no octet costs anything more.

Twisted has a wrapper for this, ``haproxy:``.  It greets before the header is there, so that nobody
knows the client's address; it takes the header from anybody, and in one piece only; it waits for it
for ever; and with TLS, it expects it inside.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..wire.proxy_header import BadProxyHeader, ProxyHeaderReader
from .protocol import LMTPProtocol
from .stand_in import StandInReactor

#: How long a proxy may take to say its header: it has it when it connects.
HEADER_SECONDS: Final = 30.0


class ProxiedReactor(StandInReactor):
    """
    Stands in for *reactor* where an endpoint is made: what connects there, says the header first.
    """

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        return super().listenTCP(port, HeaderFirstFactory(factory), backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        listening: IListeningPort = self._reactor.listenUNIX(
            address, HeaderFirstFactory(factory), backlog, mode, wantPID
        )
        return listening

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        listening: IListeningPort = self._reactor.adoptStreamPort(
            fileDescriptor, addressFamily, HeaderFirstFactory(factory)
        )
        return listening


class HeaderFirstFactory(Factory):
    """
    Puts the reading of the header in front of what *behind* makes: an LMTPProtocol, or layers of
    TLS around one.
    """

    noisy = False

    def __init__(self, behind: IProtocolFactory) -> None:
        self._behind = behind

    def doStart(self) -> None:
        super().doStart()
        self._behind.doStart()

    def doStop(self) -> None:
        super().doStop()
        self._behind.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        behind = self._behind.buildProtocol(addr)  # type: ignore[arg-type]  # as Factory has it
        lmtp = behind
        while not isinstance(lmtp, LMTPProtocol):
            lmtp = getattr(lmtp, "wrappedProtocol", None)
            if lmtp is None:
                return None
        return HeaderFirst(behind, lmtp)


class HeaderFirst(Protocol):
    """
    Reads the header, tells *lmtp* what it says, and makes way for *behind*.
    """

    _log = Logger(namespace="lmtpsvc.server")

    def __init__(self, behind: IProtocol, lmtp: LMTPProtocol) -> None:
        self._behind, self._lmtp = behind, lmtp
        self._reader = ProxyHeaderReader()
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        host = getattr(self.transport.getPeer(), "host", "local")
        factory = self._lmtp.factory
        if not factory.trusts(host):
            self._refuse(host, "is not trusted, but connects where proxies do")
        elif not factory.expect(self):
            self.abort()
        else:
            agent = factory.agent
            seconds = min(HEADER_SECONDS, agent.limits.idle_seconds)
            self._timer = agent.clock.callLater(seconds, self._too_late, host)

    def dataReceived(self, data: bytes) -> None:
        if self._timer is None:
            # Refused; what still comes is on its way to nowhere.
            return
        try:
            rest = self._reader.feed(data)
        except BadProxyHeader as error:
            assert self.transport is not None
            host = getattr(self.transport.getPeer(), "host", "local")
            self._refuse(host, f"has sent {error}")
            return
        if rest is not None:
            self._make_way(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_waiting()

    def abort(self) -> None:
        """
        Close at once.
        """
        self._stop_waiting()
        transport: Any = self.transport
        transport.abortConnection()

    def _make_way(self, rest: bytes) -> None:
        self._stop_waiting()
        transport: Any = self.transport
        self._lmtp.told = self._reader.header
        # Nobody else has the transport, as startTLS would say.
        transport.protocol = self._behind
        self._behind.makeConnection(transport)
        if rest:
            self._behind.dataReceived(rest)

    def _too_late(self, host: str) -> None:
        self._timer = None
        self._refuse(host, "has sent no PROXY header")

    def _refuse(self, host: str, what: str) -> None:
        self._log.warn("{client} {what}; connection closed", client=host, what=what)
        self.abort()

    def _stop_waiting(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._lmtp.factory.expect_no_more(self)
