"""
LMTPFactory: all connections of the service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from typing import Protocol as Shape

from OpenSSL import SSL
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from .. import replies
from ..delivery.agent import DeliveryAgent
from ..replies import Reply
from ..session.connection import Terms
from ..session.extensions import Extensions
from ..session.server import ServerSession
from .idle import IdleWatch
from .protocol import LMTPProtocol


class Expected(Shape):
    """
    A connection that is none of ours yet.
    """

    def abort(self) -> None: ...


class LMTPFactory(Factory):
    """
    Makes a protocol for each connection, and brings them all to an end when the service stops.
    """

    noisy = False
    _log = Logger(namespace="lmtpsvc.server")

    def __init__(self, agent: DeliveryAgent, extensions: Extensions) -> None:
        self.agent, self.extensions = agent, extensions
        #: Who watches new connections.
        self.idle = IdleWatch(agent.clock, agent.limits.idle_seconds)
        #: What handshakes are made with, an `IOpenSSLServerConnectionCreator`; None: there are none.
        self.tls: Any = None
        #: The conversations that it has.
        self.speaks: type[ServerSession] = ServerSession
        #: Whether a host, an IP address or ``local``, may say who the client is.
        self.trusts: Callable[[str], bool] = trusts_nobody
        self._protocols: set[LMTPProtocol] = set()
        # Those that are in a transaction with an agent of before, and who waits for them.
        self._behind: list[tuple[set[LMTPProtocol], Deferred[None]]] = []
        self._stopped: Deferred[None] | None = None
        # Connections of proxies that have not said yet whose they are.
        self._expected: set[Expected] = set()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return LMTPProtocol(self)

    def on(self, terms: Terms, *, encrypted: bool = False) -> Factory:
        """
        What a listener with *terms* makes its protocols with; if *encrypted*, there is TLS from the
        first octet on.
        """
        factory = _OnTerms(self, terms)
        if not encrypted:
            return factory
        # Small writes are gathered for one turn of the reactor, hence the clock.
        wrapped = TLSMemoryBIOFactory(
            _PresentTLS(self), isClient=False, wrappedFactory=factory, clock=self.agent.clock
        )
        wrapped.noisy = False
        return cast("Factory", wrapped)

    def use(self, agent: DeliveryAgent, extensions: Extensions) -> Deferred[None]:
        """
        From now on, new transactions are *agent*'s; new connections get its limits and
        *extensions*.  Fires when the last transaction has ended that began before.
        """
        self.agent, self.extensions = agent, extensions
        if agent.limits.idle_seconds != self.idle.seconds:
            self.idle = IdleWatch(agent.clock, agent.limits.idle_seconds)
        behind = {protocol for protocol in self._protocols if protocol.is_in_transaction}
        if not behind:
            return succeed(None)
        ended: Deferred[None] = Deferred()
        self._behind.append((behind, ended))
        return ended

    def transaction_ended(self, protocol: LMTPProtocol) -> None:
        """
        Whatever *protocol* does next, it does with the present agent.
        """
        if not self._behind:
            return
        for waiting in self._behind[:]:
            behind, ended = waiting
            behind.discard(protocol)
            if not behind:
                self._behind.remove(waiting)
                ended.callback(None)

    def admit(self, protocol: LMTPProtocol) -> Reply | None:
        """
        Count a connection.  Returns what to say to it if there is no place for it.
        """
        full = len(self._protocols) >= self.agent.limits.connections
        self._protocols.add(protocol)
        if self._stopped is not None:
            return replies.SHUTTING_DOWN
        return replies.TOO_MANY_CONNECTIONS if full else None

    def expect(self, connection: Expected) -> bool:
        """
        A proxy has connected, and will say for whom.  Returns False if there is no place for it.
        """
        if self._stopped is not None or len(self._expected) >= self.agent.limits.connections:
            return False
        self._expected.add(connection)
        return True

    def expect_no_more(self, connection: Expected) -> None:
        """
        It has said so, or is gone.
        """
        self._expected.discard(connection)

    def forget(self, protocol: LMTPProtocol) -> None:
        """
        A connection is gone.
        """
        self._protocols.discard(protocol)
        if self._behind:
            self.transaction_ended(protocol)
        if self._stopped is not None and not self._protocols and not self._stopped.called:
            self._stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """
        Let transactions in flight finish, within the bound that the limits set, and say 421 to
        everybody else.  Fires when all connections are gone.
        """
        for connection in tuple(self._expected):
            connection.abort()
        if not self._protocols:
            return succeed(None)
        self._stopped = Deferred()
        self._stopped.addTimeout(self.agent.limits.stop_seconds, self.agent.clock)
        self._stopped.addErrback(lambda _: self._abort_rest())
        stopped = self._stopped
        for protocol in tuple(self._protocols):
            protocol.shut_down()
        return stopped

    def _abort_rest(self) -> None:
        self._log.warn(
            "{count} connections are cut off, after {seconds} seconds of waiting for them",
            count=len(self._protocols),
            seconds=self.agent.limits.stop_seconds,
        )
        for protocol in tuple(self._protocols):
            protocol.abort()


class _OnTerms(Factory):
    """
    The factory of one listener: all that it makes belongs to the one of the service.
    """

    noisy = False
    #: Who has connected is asked of the connection, if somebody wants to know.
    takes_anybody = True

    def __init__(self, factory: LMTPFactory, terms: Terms) -> None:
        self._factory, self._terms = factory, terms

    def logPrefix(self) -> str:
        """
        What starts and stops where, in Twisted's own lines of the log.
        """
        return type(self._factory).__name__

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return LMTPProtocol(self._factory, self._terms)


@implementer(IOpenSSLServerConnectionCreator)
class _PresentTLS:
    """
    Makes each connection with what is in force by then.
    """

    def __init__(self, factory: LMTPFactory) -> None:
        self._factory = factory

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        tls = self._factory.tls
        assert tls is not None, "who listens so has a certificate"
        return cast("SSL.Connection", tls.serverConnectionForTLS(protocol))


def trusts_nobody(_host: str) -> bool:
    """
    What every host is as long as the operator names none.
    """
    return False
