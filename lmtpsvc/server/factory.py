"""
LMTPFactory: all connections of the service.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger

from .. import replies
from ..delivery.agent import DeliveryAgent
from ..replies import Reply
from ..session.extensions import Extensions
from .protocol import LMTPProtocol


class LMTPFactory(Factory):
    """
    Makes a protocol for each connection, and brings them all to an end when the service stops.
    """

    noisy = False
    _log = Logger(namespace="lmtpsvc.server")

    def __init__(self, agent: DeliveryAgent, extensions: Extensions) -> None:
        self.agent, self.extensions = agent, extensions
        self._protocols: set[LMTPProtocol] = set()
        self._stopped: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return LMTPProtocol(self)

    def admit(self, protocol: LMTPProtocol) -> Reply | None:
        """
        Count a connection.  Returns what to say to it if there is no place for it.
        """
        full = len(self._protocols) >= self.agent.limits.connections
        self._protocols.add(protocol)
        if self._stopped is not None:
            return replies.SHUTTING_DOWN
        return replies.TOO_MANY_CONNECTIONS if full else None

    def forget(self, protocol: LMTPProtocol) -> None:
        """
        A connection is gone.
        """
        self._protocols.discard(protocol)
        if self._stopped is not None and not self._protocols and not self._stopped.called:
            self._stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """
        Let transactions in flight finish, within the bound that the limits set, and say 421 to
        everybody else.  Fires when all connections are gone.
        """
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
