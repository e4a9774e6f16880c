"""
How a worker takes its share of connections from a socket that others have too.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from lmtpsvc.server.counts import Counts
from lmtpsvc.server.direct import AT_ONCE
from lmtpsvc.server.poller import Poller
from lmtpsvc.server.shared_port import EXHAUSTED_SECONDS, PAUSE_SECONDS, PAUSES, SharedPort


class Taking(Factory):
    """
    Counts connections for worker 1.
    """

    noisy = False
    protocol = Protocol

    def __init__(self, counts: Counts) -> None:
        self.taken = 0
        self._counts = counts

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        assert isinstance(addr, UNIXAddress)
        self.taken += 1
        self._counts.set(1, self.taken)
        return super().buildProtocol(addr)


def waiting(poller: Poller) -> list[Any]:
    """
    Who waits to be read.
    """
    return list(poller._waiting.values())


class World:
    """
    A listening socket with worker 1 behind it, and worker 2 beside.
    """

    def __init__(self, path: Path) -> None:
        self.counts = Counts.create(2)
        self.counts.take(1)
        self.counts.take(2)
        self.reactor, self.factory = MemoryReactorClock(), Taking(self.counts)
        self.poller = Poller(self.reactor)
        self.path = str(path)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(self.path)
        self.listening.listen(200)
        self.clients: list[socket.socket] = []
        self.port = SharedPort(
            self.poller, os.dup(self.listening.fileno()), self.factory, self.counts, 1
        )
        self.port.startListening()

    def connect(self, number: int = 1) -> None:
        """
        So many clients connect.
        """
        for _ in range(number):
            client = socket.socket(socket.AF_UNIX)
            client.connect(self.path)
            self.clients.append(client)

    def turn(self) -> None:
        """
        The reactor looks once whether there is something to read.
        """
        if self.is_reading:
            self.port.doRead()

    @property
    def is_reading(self) -> bool:
        return self.port in waiting(self.poller)

    def close(self) -> None:
        """
        Close all sockets.
        """
        self.port.stopListening()
        for connection in waiting(self.poller):
            connection.connectionLost(Failure(ConnectionDone()))
        assert [] == self.reactor.getReaders()
        for each in (self.listening, *self.clients):
            each.close()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The name of a socket is short.
    monkeypatch.chdir(tmp_path)
    world = World(Path("socket"))
    yield world
    world.close()


class TestTurns:
    def test_catches_up(self, world: World) -> None:
        """
        Who has fewer than all others takes connections until he has one more; then they may look.
        """
        world.counts.set(2, 2)
        world.connect(5)
        world.turn()
        assert world.factory.taken == 3
        world.turn()
        assert world.factory.taken == 3

    def test_stands_back(self, world: World) -> None:
        """
        Who has more than another leaves the connection to him, and waits without looking.
        """
        world.counts.set(1, 1)
        world.connect()
        world.turn()
        assert world.factory.taken == 0
        assert not world.is_reading

    def test_taken_by_another(self, world: World) -> None:
        """
        When the other took it, all is as before.
        """
        world.counts.set(1, 1)
        world.connect()
        world.turn()
        world.listening.accept()[0].close()
        world.reactor.advance(PAUSE_SECONDS)
        assert world.factory.taken == 0
        assert world.is_reading
        assert world.reactor.getDelayedCalls() == []

    def test_its_turn_again(self, world: World) -> None:
        """
        When the other has caught up, the connection is taken at the next look.
        """
        world.counts.set(1, 1)
        world.connect()
        world.turn()
        world.counts.set(2, 1)
        world.reactor.advance(PAUSE_SECONDS)
        assert world.factory.taken == 1
        assert world.is_reading

    def test_nobody_else_does(self, world: World) -> None:
        """
        A connection that nobody takes for a while is taken after all, with those behind it.
        """
        world.counts.set(1, 1)
        world.connect(3)
        world.turn()
        world.reactor.pump([PAUSE_SECONDS] * (PAUSES - 1))
        assert world.factory.taken == 0
        world.reactor.advance(PAUSE_SECONDS)
        assert world.factory.taken == 3
        assert world.is_reading
        assert AT_ONCE >= 3

    def test_alone(self, world: World) -> None:
        """
        Where the others are gone, nobody is waited for.
        """
        world.counts.set(1, 1)
        world.counts.clear(2)
        world.connect()
        world.turn()
        assert world.factory.taken == 1


class TestTrouble:
    def test_nothing_there(self, world: World) -> None:
        """
        Somebody was quicker: nothing happens.
        """
        world.turn()
        assert world.factory.taken == 0
        assert world.is_reading

    def test_client_has_gone(self, world: World) -> None:
        """
        A connection that ended before it began is begun all the same, and finds out by itself.
        """
        world.connect(1)
        world.clients.pop().close()
        world.turn()
        assert world.factory.taken == 1

    def test_too_many_files(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A process that can open no more files leaves connections to others for a while, instead of
        trying all the time.
        """
        monkeypatch.setattr(world.port, "_accept_one", exhausted)
        world.connect()
        world.turn()
        assert not world.is_reading
        monkeypatch.undo()
        world.reactor.advance(EXHAUSTED_SECONDS)
        assert world.factory.taken == 1
        assert world.is_reading


def exhausted() -> None:
    """
    Accept something in a process with no descriptor left.
    """
    raise OSError(errno.EMFILE, "Too many open files")


class TestEnd:
    def test_the_service_stops(self, world: World) -> None:
        """
        A socket that the supervisor has shut down is readable for ever; it is let be.
        """
        world.counts.stop()
        world.turn()
        assert not world.is_reading

    def test_stop_while_standing_back(self, world: World) -> None:
        """
        Nothing is left of a pause.
        """
        world.counts.set(1, 1)
        world.connect()
        world.turn()
        world.port.stopListening()
        assert world.reactor.getDelayedCalls() == []
        assert world.port.fileno() == -1

    def test_socket_file_stays(self, world: World) -> None:
        """
        The file belongs to who made it, and the others go on listening.
        """
        world.port.stopListening()
        world.connect()
        assert Path(world.path).is_socket()

    def test_lost(self, world: World) -> None:
        """
        The reactor's word that the socket has ended is as good, and may come before ours.
        """
        world.port.connectionLost(Failure(ConnectionDone()))
        world.port.stopListening()
        assert not world.is_reading


class Greeting(Protocol):
    """
    Says who it is, and what it knows.
    """

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if self.factory is not None and getattr(self.factory, "broken", False):
            raise RuntimeError("broken")
        transport.write(f"{transport.getPeer()} {transport.getHost()}".encode())
        transport.doWrite()


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
class TestOverTheNetwork:
    @pytest.fixture
    def factory(self) -> Factory:
        return Factory.forProtocol(Greeting)

    @pytest.fixture
    def connected(
        self, family: socket.AddressFamily, host: str, factory: Factory
    ) -> Iterator[tuple[socket.socket, SharedPort, Poller, MemoryReactorClock]]:
        """
        A client whose connection waits to be accepted.
        """
        with socket.socket(family) as listening, socket.socket(family) as client:
            listening.bind((host, 0))
            listening.listen()
            client.connect(listening.getsockname())
            client.settimeout(60)
            # The last packet of three may be still on its way when the client has connected.
            assert select.select([listening], [], [], 60)[0]
            counts, reactor = Counts.create(1), MemoryReactorClock()
            counts.take(1)
            poller = Poller(reactor)
            port = SharedPort(poller, os.dup(listening.fileno()), factory, counts, 1)
            port.startListening()
            yield client, port, poller, reactor
            port.stopListening()
            for each in waiting(poller):
                each.connectionLost(Failure(ConnectionDone()))

    def test_is_begun(self, connected: Any, host: str) -> None:
        """
        It has a transport of Twisted's, which knows both ends.
        """
        client, port, poller, _reactor = connected
        port.doRead()
        said = client.recv(1000).decode()

        [transport] = [each for each in waiting(poller) if each is not port]
        assert not os.get_blocking(transport.fileno())
        assert isinstance(transport, Server)
        peer, here = said.split(") ")
        assert str(client.getsockname()[1]) in peer
        assert host in peer
        assert str(client.getpeername()[1]) in here
        assert f"<Greeting,1,{host}>" == repr(transport)

    def test_nobody_wants_it(
        self, connected: Any, factory: Factory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        It is closed if the factory makes no protocol.
        """
        client, port, poller, _reactor = connected
        monkeypatch.setattr(factory, "buildProtocol", lambda _: None)
        port.doRead()

        assert client.recv(1) == b""
        assert waiting(poller) == [port]

    def test_is_broken(self, connected: Any, factory: Factory) -> None:
        """
        A protocol that fails at once harms nobody else.
        """
        client, port, poller, reactor = connected
        factory.broken = True  # type: ignore[attr-defined]
        with capturedLogs() as logs:
            port.doRead()
            reactor.advance(0)

        assert ["a connection could not be begun"] == [formatEvent(each) for each in logs]
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert waiting(poller) == [port]
