"""
The short way to the socket, on a real one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import main
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from zope.interface import implementer

from lmtpsvc.server.outlet import Outlet


class Losing(Protocol):
    """
    Remembers how its connection was lost.
    """

    def __init__(self) -> None:
        self.lost: list[Failure] = []

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason)


@implementer(IPushProducer)
class Producer:
    """
    Counts how often it was told to pause.
    """

    def __init__(self) -> None:
        self.pauses = 0

    def pauseProducing(self) -> None:
        self.pauses += 1

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class Wire:
    """
    An outlet, and who reads at the other end.
    """

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        self.client.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.reactor: Any = MemoryReactor()
        self.protocol = Losing()
        self.transport = Server(ours, self.protocol, ("local", 0), None, 1, self.reactor)  # type: ignore[arg-type]  # it may be None
        self.protocol.makeConnection(self.transport)
        self.producer = Producer()
        self.outlet = Outlet(self.transport, self.producer)

    def read(self) -> bytes:
        """
        All that is there.
        """
        read = b""
        try:
            while octets := self.client.recv(65536):
                read += octets
        except BlockingIOError:
            pass
        return read

    @property
    def has_ended(self) -> bool:
        try:
            return self.client.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.client.close()
    wire.transport.connectionLost(Failure(ConnectionDone()))


def test_closes_at_once(wire: Wire) -> None:
    """
    Where nothing is left to be sent, the reactor is not asked: the client has the last words, then the
    end, and the protocol has heard that it is over.
    """
    wire.outlet.finish(b"221 bye\r\n")

    assert b"221 bye\r\n" == wire.read()
    assert wire.has_ended
    [reason] = wire.protocol.lost
    assert reason.check(ConnectionDone)
    assert [] == wire.reactor.getReaders() == wire.reactor.getWriters()


def test_sends_the_rest_first(wire: Wire) -> None:
    """
    Where the client does not read yet, it gets all that it was told before the connection ends.
    """
    said = b"250 OK\r\n" * 100_000
    wire.outlet.finish(said)
    assert [] == wire.protocol.lost

    heard, why = wire.read(), None
    while why is None:
        why = wire.transport.doWrite()
        heard += wire.read()

    assert why is main.CONNECTION_DONE
    assert said == heard


def test_keeps_the_order(wire: Wire) -> None:
    """
    What comes behind words that wait, waits too.
    """
    said = b"250 OK\r\n" * 100_000
    wire.outlet.write(said)
    heard = wire.read()
    wire.outlet.write(b"last")

    while wire.transport.doWrite() is None and not heard.endswith(b"last"):
        heard += wire.read()

    assert said + b"last" == heard


def test_is_told_that_it_is_too_much(wire: Wire) -> None:
    """
    As long as the client reads, nobody has to be told how much there is; then the producer is, and is
    no more when the last words are said.
    """
    wire.outlet.write(b"250 OK\r\n")
    assert wire.outlet.is_direct
    assert wire.transport.producer is None

    wire.outlet.write(b"250 OK\r\n" * 100_000)
    assert not wire.outlet.is_direct
    assert 1 == wire.producer.pauses

    wire.outlet.finish(b"221 bye\r\n")
    assert wire.transport.producer is None
    assert wire.transport.disconnecting


def test_client_has_gone(wire: Wire) -> None:
    """
    Last words that nobody hears any more are the transport's affair, which finds out.
    """
    wire.client.close()
    wire.outlet.finish(b"221 bye\r\n")
    assert [] == wire.protocol.lost
    assert wire.transport.doWrite() is main.CONNECTION_LOST


def test_has_been_lost(wire: Wire) -> None:
    """
    A connection that is lost already is not lost again.
    """
    wire.transport.connectionLost(Failure(ConnectionDone()))
    wire.outlet.finish(b"221 bye\r\n")

    assert 1 == len(wire.protocol.lost)
