"""
A server for clients to talk to, without sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectingCancelledError, ConnectionDone
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from lmtpsvc.envelope import Address, Recipient, Sender
from lmtpsvc.outgoing.delivery import Delivery
from lmtpsvc.outgoing.text import Text
from lmtpsvc.session.terms import Mailing

OK = b"250 2.0.0 OK\r\n"


class Connection:
    """
    The server's side of a connection.
    """

    def __init__(self, protocol: IProtocol, *, encrypted: bool = False) -> None:
        self.transport = Wire()
        if encrypted:
            alsoProvides(self.transport, ISSLTransport)
        self.protocol = protocol
        self._lost = False
        protocol.makeConnection(self.transport)

    def say(self, octets: bytes) -> None:
        """
        Let the server say something.
        """
        self.protocol.dataReceived(octets)

    def heard(self) -> bytes:
        """
        What the client has said since the last time.
        """
        said: bytes = self.transport.value()
        self.transport.clear()
        return said

    def greet(self, *extensions: str) -> None:
        """
        Greet, and announce extensions, PIPELINING among them.
        """
        self.say(b"220 foo.edu\r\n")
        assert self.heard().startswith(b"LHLO ")
        lines = "".join(f"250-{each}\r\n" for each in ("foo.edu", *extensions))
        self.say(f"{lines}250 PIPELINING\r\n".encode())

    def take(self, recipients: int = 1) -> None:
        """
        Accept a transaction with so many recipients, up to the text.
        """
        assert self.heard().endswith(b"DATA\r\n")
        self.say(OK * (1 + recipients) + b"354 go\r\n")

    @property
    def is_closing(self) -> bool:
        """
        The client has closed the connection.
        """
        return self.transport.disconnecting or self.transport.aborted

    def lose(self, reason: Exception | None = None) -> None:
        """
        Close it.
        """
        if not self._lost:
            self._lost = True
            self.transport.lose()
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))


class Wire(StringTransport):
    """
    A transport that notes being aborted.
    """

    aborted = False
    _lost = False
    #: What TLS was begun with.
    tls: object = None

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        There is nothing to delay.
        """

    def startTLS(self, contextFactory: object) -> None:
        self.tls = contextFactory

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()

    def lose(self) -> None:
        """
        It is lost: as those of Twisted's do, tell whoever produces before the protocol.
        """
        self._lost = True
        if self.producer is not None:
            self.producer.stopProducing()

    def unregisterProducer(self) -> None:
        # A transport of Twisted's with TLS, begun by startTLS, has no protocol any more then.
        if self._lost:
            raise AttributeError("'Client' object has no attribute 'protocol'")
        super().unregisterProducer()


@implementer(IStreamClientEndpoint)
class Server:
    """
    Takes connections, or refuses them with *error*; with *holding*, later.  If *encrypted*, there is
    TLS from the first octet on.
    """

    encrypted = False

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.error: Exception | None = None
        self.holding = False
        self.held: list[Deferred[IProtocol]] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if self.holding:
            self.held.append(Deferred(_cancelled))
            return self.held[-1]
        if self.error is not None:
            return fail(self.error)
        protocol = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]  # nobody looks
        assert protocol is not None
        self.connections.append(Connection(protocol, encrypted=self.encrypted))
        return succeed(protocol)


def _cancelled(connecting: Deferred[IProtocol]) -> None:
    """
    Fail as Twisted's endpoints do.
    """
    connecting.errback(ConnectingCancelledError(UNIXAddress("/run/foo")))


@pytest.fixture
def server() -> Server:
    """
    A server.
    """
    return Server()


@pytest.fixture
def clock() -> Clock:
    """
    The time.
    """
    return Clock()


@pytest.fixture
def message() -> Callable[..., Delivery]:
    """
    Make a delivery: ``message("ann", "bob", text=b"...")``.
    """

    def message(*names: str, text: object = b"Hi\r\n", **options: Any) -> Delivery:
        recipients = tuple(Recipient(Address(name, "foo.edu")) for name in names or ("ann",))
        mailing = Mailing(Sender(None), recipients, "7BIT", **options)
        return Delivery(mailing, Text(text))  # type: ignore[arg-type]

    return message


@pytest.fixture
def logged() -> Iterator[Callable[[], list[str]]]:
    """
    What was logged as a failure; forgotten by Twisted's own test of that.
    """
    events: list[str] = []

    def observe(event: dict[str, object]) -> None:
        if event.get("log_failure") is not None:
            events.append(str(event["log_format"]))

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]  # a plain function will do
    yield lambda: events
    globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]  # as above
