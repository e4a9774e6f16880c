"""
Ports and connections that go straight to the kernel.

They are Twisted's in all that is done seldom.  What is done for each connection and each packet is
done here, and is as little as may be: many clients connect for one message.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..delivery.past_cache import READ
from .poller import Poller
from .stand_in import StandInReactor

#: At most so many connections at a time: those that there are have to be served, too.
AT_ONCE: Final = 100

#: To ask for a connection where there is none costs as much as one that there is: who has done so asks
#: for no more than there were, for so many times.
CONTENT: Final = 16

#: Octets that are read at a time; and of a connection on which more are waiting.
USUAL: Final = 1 << 16
MUCH: Final = READ

_log = Logger(namespace="lmtpsvc.server")


class DirectConnection(tcp.Server):
    """
    A TCP or UNIX connection that has been accepted, from *address*, as the kernel calls it, the one
    with that *number* at its port.  It is one that does not put packets off (TCP_NODELAY), as its port
    is.
    """

    _at_a_time = USUAL

    def __init__(
        self,
        connection: socket.socket,
        protocol: Protocol,
        address: Any,
        number: int,
        poller: Poller,
    ) -> None:
        # All that those of its own class and of FileDescriptor do, but for texts for the log that
        # nobody reads.
        self.reactor: Any = poller
        self._tempDataBuffer, self._tempDataLen = [], 0
        connection.setblocking(False)
        self.socket, self.fileno = connection, connection.fileno
        self.protocol = protocol
        self._address, self._number = address, number
        self.connected = 1
        poller.begin(self, connection.fileno())

    def __repr__(self) -> str:
        return f"<{self.logPrefix()}>"

    def logPrefix(self) -> str:
        """
        What is logged by Twisted in its name.
        """
        host, _ = self.host_and_port()
        return f"{type(getattr(self, 'protocol', None)).__name__},{self._number},{host}"

    def getPeer(self) -> IAddress:
        """
        Who has connected.
        """
        return address_of(self._address)

    def host_and_port(self) -> tuple[str, int | None]:
        """
        The same, in the usual case without an object that is made for it; ``local`` and no port for a
        UNIX socket.
        """
        address = self._address
        if isinstance(address, tuple) and len(address) == 2:
            return address
        peer = address_of(address)
        return getattr(peer, "host", "local"), getattr(peer, "port", None)

    def getHost(self) -> IAddress:
        """
        Where.
        """
        return address_of(self.socket.getsockname())

    def doRead(self) -> ConnectionLost | ConnectionDone | None:  # type: ignore[override]  # as Twisted's own
        """
        Take a packet to the protocol.
        """
        size = self._at_a_time
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        if len(data) == size:
            self._at_a_time = MUCH
        elif size == MUCH and len(data) < USUAL:
            self._at_a_time = USUAL
        self.protocol.dataReceived(data)
        return None

    def readConnectionLost(self, reason: Failure) -> None:
        """
        The other side says no more: that is the end, for all protocols that there are here.
        """
        self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """
        Close it.
        """
        if self.disconnected:
            return
        if isinstance(reason.value, ConnectionAborted):
            super().connectionLost(reason)
            return
        self.connected, self.disconnected = 0, 1
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        self.reactor.forget(self.fileno())
        # Nobody else has it, so that there is nothing to be shut down first.
        self.socket.close()
        protocol = self.protocol
        del self.protocol
        protocol.connectionLost(reason)


class _Accepting(tcp.Port):
    """
    How both kinds of ports take connections.
    """

    # How many there may be, by what there was last time; and how many times it is not tried whether
    # there are more.
    _expected, _content = 1, 0
    _accept: Callable[[], tuple[socket.socket, Any]]

    def startListening(self) -> None:
        super().startListening()
        self._accept = accepting(self.socket)

    def doRead(self) -> None:
        """
        Take what is there.
        """
        for taken in range(self._expected):
            try:
                connection, address = self._accept()
            except BlockingIOError:
                self._expected, self._content = taken or 1, CONTENT
                return
            except OSError:
                # Twisted knows what is to be done if there are no more descriptors, for example.
                super().doRead()
                return
            self.sessionno += 1
            begin(connection, address, self.factory, self.sessionno, self.reactor)  # type: ignore[arg-type]  # there is a factory, and a poller
        if self._content:
            self._content -= 1
        else:
            self._expected = min(2 * self._expected, AT_ONCE)


class DirectPort(_Accepting):
    """
    A TCP port.
    """


class DirectUNIXPort(_Accepting, unix.Port):
    """
    A UNIX socket in the file system.
    """


class DirectReactor(StandInReactor):
    """
    Stands in for *reactor* where an endpoint is made: what it listens with, and all connections
    there, go straight to the kernel.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._poller = Poller(reactor)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        listening = DirectPort(port, factory, backlog, interface, self._poller)
        listening.startListening()
        return cast("IListeningPort", listening)

    def listenUNIX(
        self,
        address: Any,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        listening = DirectUNIXPort(address, factory, backlog, mode, self._poller, wantPID)
        listening.startListening()
        return cast("IListeningPort", listening)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        """
        On a TCP socket of somebody else's: systemd's.
        """
        # What the reactor calls; there is no other way to a port of one's own.
        listening = DirectPort._fromListeningDescriptor(
            self._poller, fileDescriptor, addressFamily, factory
        )
        listening.startListening()
        return cast("IListeningPort", listening)


def accepting(listening: socket.socket) -> Callable[[], tuple[socket.socket, Any]]:
    """
    What accepts a connection from *listening*, as its own method does, which asks itself each time of
    what kind it is.  TCP connections do not put off packets: each reply leaves as soon as it is known.
    """
    family, kind, protocol = int(listening.family), int(listening.type), listening.proto
    if family != socket.AF_UNIX:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accept = listening._accept  # type: ignore[attr-defined]  # what its own method calls
    # Without what Python puts around it, for files and enumerations that nobody asks for.
    made: Any = socket.SocketType

    def accept_one() -> tuple[socket.socket, Any]:
        descriptor, address = accept()
        return made(family, kind, protocol, descriptor), address

    return accept_one


def begin(
    connection: socket.socket, address: Any, factory: IProtocolFactory, number: int, poller: Poller
) -> None:
    """
    Let *factory* have a *connection* from *address*, as the kernel calls it, that was accepted.  One
    that has *takes_anybody* is not told from whom.
    """
    transport: DirectConnection | None = None
    try:
        peer = None if getattr(factory, "takes_anybody", False) else address_of(address)
        protocol: Any = factory.buildProtocol(peer)  # type: ignore[arg-type]  # as Factory has it
        if protocol is None:
            connection.close()
            return
        transport = DirectConnection(connection, protocol, address, number, poller)
        protocol.makeConnection(transport)
    except Exception:
        # The next one may be begun: the port goes on.
        _log.failure("a connection could not be begun")
        if transport is None:
            connection.close()
        else:
            transport.abortConnection()


def address_of(address: Any) -> IAddress:
    """
    What the kernel says, as Twisted has it.
    """
    if not isinstance(address, tuple):
        return UNIXAddress(address or None)
    if len(address) == 2:
        return IPv4Address("TCP", *address)
    host, port, flow, scope = address
    if scope:
        # As in fe80::1%eth0.
        host, _ = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return IPv6Address("TCP", host, port, flow, scope)
