"""
A whole server on transports that are strings, with a directory and a backend that wait to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from lmtpsvc.delivery.agent import DeliveryAgent
from lmtpsvc.delivery.routing import AddressRules, Routing
from lmtpsvc.delivery.spool import SpoolSettings
from lmtpsvc.envelope import Mailbox
from lmtpsvc.errors import refusal
from lmtpsvc.interfaces import Capabilities, IBackend, IDirectory, IMessage
from lmtpsvc.limits import Limits
from lmtpsvc.replies import NO_SUCH_USER
from lmtpsvc.server.factory import LMTPFactory
from lmtpsvc.server.protocol import LMTPProtocol
from lmtpsvc.session.standard import standard_extensions

PEER = IPv4Address("TCP", "192.0.2.7", 54321)


@implementer(IDirectory, IBackend)
class World:
    """
    Who lives here, and where their mail goes.

    ``no...`` is unknown, ``late...`` is looked up when *lookups* says so.  Each mailbox is
    delivered to when *held* says so, but for ``quick...``, which is at once.
    """

    capabilities = Capabilities()

    def __init__(self) -> None:
        self.lookups: dict[str, Deferred[Any]] = {}
        self.held: dict[str, Deferred[None]] = {}
        self.messages: list[IMessage] = []

    def resolve(self, mailbox: Mailbox) -> Any:
        if mailbox.user.startswith("no"):
            raise refusal(NO_SUCH_USER)
        if not mailbox.user.startswith("late"):
            return [mailbox]
        waiting: Deferred[Any] = Deferred()
        waiting.addCallback(lambda _: [mailbox])
        self.lookups[mailbox.user] = waiting
        return waiting

    def verify(self, mailbox: Mailbox) -> None: ...

    def deliver(self, message: IMessage, mailboxes: Sequence[Mailbox]) -> list[Deferred[None]]:
        self.messages.append(message)
        results = [self.result() for _ in mailboxes]
        for mailbox, result in zip(mailboxes, results, strict=True):
            if mailbox.user.startswith("quick"):
                result.callback(None)
            else:
                self.held[mailbox.user] = result
        return results

    def result(self) -> Deferred[None]:
        return Deferred()

    def texts(self) -> list[bytes]:
        """
        The messages, without what was put on top.
        """
        texts = []
        for message in self.messages:
            with message.open() as file:
                texts.append(file.read().partition(b"\r\n\tby ")[2].partition(b"\r\n")[2])
        return texts


class Wire(StringTransport):
    """
    The transport of one connection, with the client at its other end.
    """

    def __init__(self, protocol: LMTPProtocol, peer: IAddress) -> None:
        super().__init__(peerAddress=peer)
        self.protocol = protocol
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def says(self, *chunks: bytes) -> list[bytes]:
        """
        Let the client say something; returns the lines that it hears.
        """
        for chunk in chunks:
            self.protocol.dataReceived(chunk)
        return self.heard()

    def heard(self) -> list[bytes]:
        """
        The lines that the client has heard since the last time.
        """
        lines: list[bytes] = self.value().splitlines()
        self.clear()
        self.writes.clear()
        return lines

    def hang_up(self) -> None:
        """
        The connection has gone.
        """
        self.protocol.connectionLost(Failure(ConnectionDone()))

    @property
    def is_read(self) -> bool:
        return self.producerState == "producing"


class Server:
    """
    A service without listening ports.
    """

    def __init__(
        self, directory: Path, world: World, limits: Limits, clock: Clock | None = None
    ) -> None:
        self.clock, self.world = clock or Clock(), world
        self.jobs: list[Callable[[], object]] = []
        #: A slow disk keeps what is to be written in *jobs*.
        self.slow_disk = False
        agent = DeliveryAgent(
            Routing(
                world, world, AddressRules("mx.example.org"), self.clock, limits.lookup_seconds
            ),
            world,
            self.clock,
            "mx.example.org",
            limits,
            SpoolSettings(limits.spool_memory, str(directory), "\n", self._in_thread),
        )
        self.factory = LMTPFactory(agent, standard_extensions(limits))

    def connect(self, peer: IAddress = PEER) -> Wire:
        """
        A connection that has heard its greeting.
        """
        wire = self.accept(peer)
        assert [b"220 mx.example.org LMTP lmtpsvc ready"] == wire.heard()
        assert wire.says(b"LHLO client.example.net\r\n")
        return wire

    def accept(self, peer: IAddress = PEER) -> Wire:
        """
        A new connection.
        """
        protocol = self.factory.buildProtocol(peer)
        assert isinstance(protocol, LMTPProtocol)
        wire = Wire(protocol, peer)
        protocol.makeConnection(wire)
        return wire

    def work(self) -> None:
        """
        Let the slow disk write what it has.
        """
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()

    def _in_thread(self, job: Callable[[], Any]) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.jobs.append(lambda: execute(job).chainDeferred(result))
        if not self.slow_disk:
            self.work()
        return result


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_server(tmp_path: Path, world: World) -> Callable[..., Server]:
    """
    Make a server with limits, and another clock if one is given.
    """
    return lambda limits, clock=None: Server(tmp_path / "spool", world, limits, clock)


@pytest.fixture
def server(make_server: Callable[..., Server]) -> Server:
    return make_server(Limits(spool_memory=1000))


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """
    What is logged from now on.
    """
    observer = _Observer()
    globalLogPublisher.addObserver(observer)
    yield observer.events
    globalLogPublisher.removeObserver(observer)


@implementer(ILogObserver)
class _Observer:
    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)
