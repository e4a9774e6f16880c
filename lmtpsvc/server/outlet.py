"""
Outlet: the short way for replies to the socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Server
from twisted.python.failure import Failure

_DONE: Final = Failure(ConnectionDone())


class Outlet:
    """
    Writes to a plain TCP or UNIX connection, and closes it, at once.

    A Twisted transport keeps what is written until the reactor has asked the kernel whether it may
    be sent.  A reply is short and its client is waiting for it, so it nearly always may; not asking
    saves three system calls for each reply.  What the kernel does not take goes to the transport,
    as does all that comes after: its order is kept.
    """

    __slots__ = ("_send", "_transport")

    def __init__(self, transport: ITransport) -> None:
        self._transport = transport
        self._send: Callable[[bytes], int] | None = None
        # What is encrypted must go through the transport.
        if isinstance(transport, Server) and not transport.TLS:
            self._send = transport.getHandle().send

    def write(self, octets: bytes) -> None:
        """
        Send *octets*, now or as soon as may be.
        """
        if self._send is not None:
            try:
                sent = self._send(octets)
            except OSError:
                # Full, or broken: the transport will find out which.
                sent = 0
            if sent == len(octets):
                return
            octets = octets[sent:]
            self._send = None
        self._transport.write(octets)

    def close(self) -> None:
        """
        Close the connection, now or as soon as all has been sent: the protocol may hear that it is
        lost before this returns.
        """
        transport = self._transport
        if self._send is not None and isinstance(transport, Server) and transport.connected:
            # As the reactor does it, once it has been told to wait for a socket that may be written
            # to, has waited, and has written nothing.
            self._send = None
            transport.connectionLost(_DONE)
        else:
            transport.loseConnection()
