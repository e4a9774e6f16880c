"""
Ports and connections on real sockets, past the reactor.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from lmtpsvc.limits import Limits
from lmtpsvc.server.direct import MUCH, USUAL, DirectConnection, DirectReactor, address_of
from lmtpsvc.server.poller import Poller


class Noting(Protocol):
    """
    Notes what happens to it.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.heard: list[bytes] = []
        self.lost: list[Failure] = []

    def connectionMade(self) -> None:
        if self.world.is_broken:
            raise RuntimeError("broken")
        self.world.made.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason)

    @property
    def connection(self) -> DirectConnection:
        assert isinstance(self.transport, DirectConnection)
        return self.transport


class World(Factory):
    """
    A port, and clients of it.
    """

    noisy = False

    def __init__(self, directory: Path) -> None:
        self.clock = MemoryReactorClock()
        self.reactor: Any = DirectReactor(self.clock)
        self.path = directory / "socket"
        self.made: list[Noting] = []
        self.addresses: list[IAddress | None] = []
        #: Nobody is let in; who comes in fails.
        self.is_closed = self.is_broken = self.is_defective = self.takes_anybody = False
        self.clients: list[socket.socket] = []
        self.port: Any = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        self.addresses.append(addr)
        if self.is_defective:
            raise RuntimeError("defective")
        return None if self.is_closed else Noting(self)

    def listen(self, kind: str = "tcp") -> None:
        """
        On this machine, or on a path.
        """
        if kind == "tcp":
            self.port = self.reactor.listenTCP(0, self, backlog=50, interface="127.0.0.1")
        else:
            self.port = self.reactor.listenUNIX(str(self.path), self, mode=0o600)

    def connect(self) -> socket.socket:
        """
        One more client, that waits to be accepted.
        """
        where = self.port.getHost()
        if isinstance(where, UNIXAddress):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(self.path))
        else:
            client = socket.create_connection((where.host, where.port))
        client.settimeout(60)
        self.clients.append(client)
        return client

    def turn(self) -> None:
        """
        The reactor looks once whether something can be read.
        """
        for each in self.clock.getReaders():
            each.doRead()

    def accepted(self) -> tuple[Noting, socket.socket]:
        """
        A connection, and its client.
        """
        client = self.connect()
        while not self.made:
            self.turn()
        return self.made.pop(), client

    def close(self) -> None:
        """
        Close all; nothing must be left at the reactor then.
        """
        for client in self.clients:
            client.close()
        self.turn()
        if self.port is not None:
            self.port.stopListening()
        self.clock.advance(0)
        assert [] == self.clock.getReaders()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The name of a socket is short.
    monkeypatch.chdir(tmp_path)
    world = World(Path())
    yield world
    world.close()


class TestPort:
    def test_tcp(self, world: World) -> None:
        """
        A connection knows both ends, waits for nothing, and does not put packets off.
        """
        world.listen()
        protocol, client = world.accepted()

        connection = protocol.connection
        assert IPv4Address("TCP", *client.getsockname()) == connection.getPeer()
        assert world.addresses == [connection.getPeer()]
        assert world.port.getHost() == connection.getHost()
        assert not os.get_blocking(connection.fileno())
        assert not os.get_inheritable(connection.fileno())
        assert connection.getTcpNoDelay()
        assert "<Noting,1,127.0.0.1>" == repr(connection)

    def test_takes_anybody(self, world: World) -> None:
        """
        A factory that does not want to know who connects is not told; the connection knows.
        """
        world.takes_anybody = True
        world.listen()
        protocol, client = world.accepted()
        assert [None] == world.addresses
        assert client.getsockname() == protocol.connection.host_and_port()
        assert IPv4Address("TCP", *client.getsockname()) == protocol.connection.getPeer()

    def test_unix(self, world: World) -> None:
        """
        On a path, that has the mode that was asked for, and goes with the port.
        """
        world.listen("unix")
        assert 0o600 == world.path.stat().st_mode & 0o777
        protocol, _ = world.accepted()
        assert UNIXAddress(None) == protocol.connection.getPeer()
        assert ("local", None) == protocol.connection.host_and_port()
        assert UNIXAddress(b"socket") == protocol.connection.getHost()
        assert "<Noting,1,local>" == repr(protocol.connection)

        world.port.stopListening()
        world.clock.advance(0)
        assert not world.path.exists()
        assert [] == protocol.lost

    def test_adopted(self, world: World) -> None:
        """
        A socket that somebody else has bound is listened on, and left to him.
        """
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            listening.setblocking(False)
            world.port = world.reactor.adoptStreamPort(listening.fileno(), socket.AF_INET, world)
            protocol, client = world.accepted()
            assert protocol.connection.getTcpNoDelay()

            world.port.stopListening()
            world.clock.advance(0)
            socket.create_connection(client.getpeername()).close()

    @pytest.mark.parametrize("number", [1, 2, 7, 40])
    def test_many(self, world: World, number: int) -> None:
        """
        However many come at a time, all get in, and then nobody is asked for any more.
        """
        world.listen()
        for _ in range(2):
            world.made.clear()
            for _ in range(number):
                world.connect()
            for _ in range(number):
                world.turn()
            assert number == len(world.made)

    def test_one_by_one(self, world: World) -> None:
        """
        Where connections come one by one, the kernel is seldom asked for one more than there is.
        """
        world.listen()
        accept, in_vain = world.port._accept, 0

        def counting() -> tuple[socket.socket, Any]:
            nonlocal in_vain
            try:
                return accept()  # type: ignore[no-any-return]  # the port's own
            except BlockingIOError:
                in_vain += 1
                raise

        world.port._accept = counting
        for _ in range(40):
            world.connect()
            world.turn()
        assert 40 == len(world.made)
        assert in_vain <= 3

    def test_nobody_wants_it(self, world: World) -> None:
        """
        It is closed if the factory makes no protocol.
        """
        world.listen()
        world.is_closed = True
        client = world.connect()
        world.turn()

        assert b"" == client.recv(1)

    def test_factory_is_defective(self, world: World) -> None:
        """
        A factory that fails loses that connection, and the port goes on.
        """
        world.listen()
        world.is_defective = True
        client = world.connect()
        with capturedLogs() as logs:
            world.turn()
        assert ["a connection could not be begun"] == [formatEvent(each) for each in logs]
        assert b"" == client.recv(1)

        world.is_defective = False
        world.accepted()

    def test_cannot_be_waited_for(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A connection that the kernel cannot watch, as there are too many, is closed.
        """
        world.listen()
        client = world.connect()

        def too_many(*_: object) -> None:
            raise OSError(errno.ENOSPC, "no more watches")

        with monkeypatch.context() as patch, capturedLogs() as logs:
            patch.setattr(Poller, "begin", too_many)
            world.turn()
        assert ["a connection could not be begun"] == [formatEvent(each) for each in logs]
        assert b"" == client.recv(1)
        assert [] == world.made
        world.accepted()

    def test_is_broken(self, world: World) -> None:
        """
        A protocol that fails at once harms nobody else.
        """
        world.listen()
        world.is_broken = True
        client = world.connect()
        with capturedLogs() as logs:
            world.turn()
            world.clock.advance(0)
        assert ["a connection could not be begun"] == [formatEvent(each) for each in logs]
        with pytest.raises(ConnectionResetError):
            client.recv(1)

        world.is_broken = False
        world.accepted()

    def test_no_more_descriptors(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What cannot be accepted is Twisted's affair, who has a descriptor in reserve for that.
        """

        def exhausted() -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        world.listen()
        with monkeypatch.context() as patch:
            patch.setattr(world.port, "_accept", exhausted)
            client = world.connect()
            world.turn()
        [protocol] = world.made
        client.sendall(b"x")
        world.turn()
        assert [b"x"] == protocol.heard


class TestConnection:
    @pytest.fixture(params=["tcp", "unix"])
    def world(self, world: World, request: pytest.FixtureRequest) -> World:
        world.listen(request.param)
        return world

    def test_reads(self, world: World) -> None:
        """
        What comes is the protocol's; that nothing has come is nothing.
        """
        protocol, client = world.accepted()
        assert protocol.connection.doRead() is None
        client.sendall(b"one")
        world.turn()
        client.sendall(b"two")
        world.turn()

        assert [b"one", b"two"] == protocol.heard

    def test_reads_much(self, world: World) -> None:
        """
        Where more is waiting than is usually read at a time, more is read from then on, until it
        becomes less.
        """
        sizes: list[int] = []

        class Socket:
            """
            Gives what it is asked for, as long as there is as much.
            """

            waiting = USUAL + 2 * MUCH + 1

            def recv(self, size: int) -> bytes:
                sizes.append(size)
                taken = min(size, self.waiting)
                Socket.waiting -= taken
                return b"x" * taken

        protocol, _client = world.accepted()
        connection = protocol.connection
        real, connection.socket = connection.socket, Socket()  # type: ignore[assignment]  # enough of one
        for _ in range(4):
            assert connection.doRead() is None
        Socket.waiting = 10
        connection.doRead()
        connection.socket = real

        assert [USUAL, MUCH, MUCH, MUCH, USUAL] == sizes
        assert USUAL + 2 * MUCH + 11 == sum(map(len, protocol.heard))

    def test_writes(self, world: World) -> None:
        """
        What the protocol says is sent, and all of it before the connection ends.
        """
        protocol, client = world.accepted()
        connection = protocol.connection
        connection.write(b"one ")
        connection.write(b"two")
        connection.loseConnection()
        for _ in range(2):
            world.turn()

        assert b"one two" == client.recv(100)
        assert b"" == client.recv(1)
        [reason] = protocol.lost
        assert reason.check(ConnectionDone)

    def test_hangs_up(self, world: World) -> None:
        """
        A client that has gone has ended the connection.
        """
        protocol, client = world.accepted()
        client.sendall(b"bye")
        client.close()
        for _ in range(2):
            world.turn()

        assert [b"bye"] == protocol.heard
        [reason] = protocol.lost
        assert reason.check(ConnectionDone)
        assert not protocol.connection.connected

    def test_is_aborted(self, world: World) -> None:
        """
        A connection that is cut off is lost once, and what comes then is not read.
        """
        protocol, client = world.accepted()
        client.sendall(b"x")
        protocol.connection.abortConnection()
        world.turn()
        world.clock.advance(0)
        protocol.connection.connectionLost(Failure(ConnectionDone()))

        assert [] == protocol.heard
        assert 1 == len(protocol.lost)

    def test_is_lost_once(self, world: World) -> None:
        """
        Who is told twice hears it once; who produced for it is told, too.
        """
        protocol, _ = world.accepted()
        stopped: list[bool] = []

        class Producer:
            def stopProducing(self) -> None:
                stopped.append(True)

        connection = protocol.connection
        connection.registerProducer(Producer(), True)
        for _ in range(2):
            connection.connectionLost(Failure(ConnectionDone()))

        assert 1 == len(protocol.lost)
        assert [True] == stopped
        assert repr(connection).startswith("<NoneType,1,")


def test_is_reset(world: World) -> None:
    """
    A connection that the network takes away is lost.
    """
    world.listen()
    protocol, client = world.accepted()
    # Linger for no time: close with a reset.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    world.turn()

    [reason] = protocol.lost
    assert reason.check(ConnectionLost)


def test_leaves_nothing(make_server: Callable[..., Any], world: World) -> None:
    """
    A connection is gone when it has ended: the garbage collector has nothing to do with it.
    """
    factory = make_server(Limits()).factory
    world.port = world.reactor.listenTCP(0, factory, backlog=50, interface="127.0.0.1")
    client = world.connect()
    while not factory._protocols:
        world.turn()
    [protocol] = map(weakref.ref, factory._protocols)
    gc.disable()
    try:
        client.sendall(b"LHLO me\r\nQUIT\r\n")
        while factory._protocols:
            world.turn()
        assert protocol() is None
    finally:
        gc.enable()


def test_other_addresses() -> None:
    """
    Addresses of IPv6 have the zone in which they are valid, if there is one.
    """
    zone = socket.if_nametoindex("lo")
    assert "IPv6Address(type='TCP', host='::1', port=25, flowInfo=0, scopeID=0)" == repr(
        address_of(("::1", 25, 0, 0))
    )
    assert "fe80::1%lo" == address_of(("fe80::1", 25, 0, zone)).host  # type: ignore[attr-defined]  # IPv6
