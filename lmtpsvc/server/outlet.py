"""
Outlet: the short way for replies to the socket.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.internet.tcp import Server
from twisted.python.failure import Failure

_DONE: Final = Failure(ConnectionDone())


class Outlet:
    """
    Writes to a plain TCP or UNIX connection, and closes it, at once.

    A Twisted transport keeps what is written until the reactor has asked the kernel whether it may
    be sent.  A reply is short and its client is waiting for it, so it nearly always may; not asking
    saves three system calls for each reply.  What the kernel does not take goes to the transport,
    as does all that comes after: its order is kept.  From then on, the transport has a *producer*,
    who is told when it has too much.
    """

    __slots__ = ("_producer", "_socket", "_transport")

    def __init__(self, transport: ITransport, producer: IPushProducer) -> None:
        self._transport, self._producer = transport, producer
        # None: what is encrypted, for example, must go through the transport.
        self._socket: socket.socket | None = None
        if isinstance(transport, Server) and not transport.TLS:
            self._socket = transport.socket

    @property
    def is_direct(self) -> bool:
        """
        The transport has nothing to do with what is written.
        """
        return self._socket is not None

    def write(self, octets: bytes) -> None:
        """
        Send *octets*, now or as soon as may be.
        """
        handle = self._socket
        if handle is not None:
            try:
                sent = handle.send(octets)
            except OSError:
                # Full, or broken: the transport will find out which.
                sent = 0
            if sent == len(octets):
                return
            octets, self._socket = octets[sent:], None
            transport: Any = self._transport
            transport.registerProducer(self._producer, True)
        self._transport.write(octets)

    def finish(self, octets: bytes) -> None:
        """
        Send *octets*, the last, and close the connection, now or as soon as all has been sent: the
        protocol may hear that it is lost before this returns.
        """
        transport: Any = self._transport
        handle, self._socket = self._socket, None
        if handle is None:
            transport.unregisterProducer()
        elif transport.connected:
            try:
                # What is closed while more is to come goes into one packet with its end.
                sent = handle.send(octets, socket.MSG_MORE)
                if sent == len(octets):
                    handle.shutdown(socket.SHUT_WR)
            except OSError:
                # As above.
                sent = 0
            if sent == len(octets):
                # As the reactor does it, once it has been told to wait for a socket that may be
                # written to, has waited, and has written nothing.
                transport.connectionLost(_DONE)
                return
            octets = octets[sent:]
        if octets:
            transport.write(octets)
        transport.loseConnection()
