"""
SharedPort: a listening socket that several processes have, each taking its share of connections.

All of them wake up for a connection, and the first would take everything: the kernel knows nothing
of connections that last.  So a worker that has more of them than another one stands back for a
moment, and takes the connection after all if nobody else did, because a worker that hangs must not
keep anybody waiting.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReadDescriptor,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from .counts import Counts
from .direct import AT_ONCE, accepting, begin
from .poller import Poller

#: How long a worker stands back before it looks again, and after how many times it takes what is
#: there.  An idle worker takes a connection within a fraction of the first.
PAUSE_SECONDS: Final = 0.002
PAUSES: Final = 10
#: How long to leave connections to others when this process can have no more files.
EXHAUSTED_SECONDS: Final = 1.0

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@implementer(IListeningPort, IReadDescriptor)
class SharedPort:
    """
    Takes connections for *factory* from the listening socket *descriptor*, which becomes its own,
    as worker *number*.

    It has nothing to do with where the socket came from: who bound it removes what was bound.
    """

    _log = Logger(namespace="lmtpsvc.server")

    def __init__(
        self,
        poller: Poller,
        descriptor: int,
        factory: IProtocolFactory,
        counts: Counts,
        number: int,
    ) -> None:
        self._poller, self._factory = poller, factory
        self._counts, self._number = counts, number
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._accept_one = accepting(self._socket)
        self._look = select.poll()
        self._look.register(descriptor, select.POLLIN)
        self._pauses = 0
        self._call: IDelayedCall | None = None
        # Connections so far, for their names in the log.
        self._begun = 0

    # ── IListeningPort ───────────────────────────────────────────────────────────────────────────

    def startListening(self) -> None:
        """
        Take connections from now on.
        """
        self._factory.doStart()
        self._poller.addReader(self)

    def stopListening(self) -> None:
        """
        Take no more; the others go on.
        """
        if self._socket.fileno() < 0:
            return
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._poller.removeReader(self)
        self._socket.close()
        self._factory.doStop()

    def getHost(self) -> IAddress:
        """
        Where it listens.
        """
        address = self._socket.getsockname()
        match self._socket.family:
            case socket.AF_INET:
                return IPv4Address("TCP", *address)
            case socket.AF_INET6:
                return IPv6Address("TCP", *address)
            case _:
                return UNIXAddress(address)

    # ── IReadDescriptor ──────────────────────────────────────────────────────────────────────────

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "SharedPort"

    def doRead(self) -> None:
        """
        There is a connection.  After each, the others are looked at: the next may be theirs.
        """
        if self._counts.stopping:
            # The supervisor has shut the socket down, and it would be readable for ever.
            self._poller.removeReader(self)
        elif self._counts.is_due(self._number):
            self._accept()
        else:
            self._pauses = 0
            self._stand_back(PAUSE_SECONDS)

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor has seen that the socket was shut down.
        """
        self.stopListening()

    # ── taking turns ─────────────────────────────────────────────────────────────────────────────

    def _stand_back(self, seconds: float) -> None:
        self._poller.removeReader(self)
        self._call = self._poller.callLater(seconds, self._look_again)

    def _look_again(self) -> None:
        self._call = None
        if self._look.poll(0) and not self._counts.stopping:
            self._pauses += 1
            if self._counts.is_due(self._number):
                self._accept()
            elif self._pauses < PAUSES:
                self._call = self._poller.callLater(PAUSE_SECONDS, self._look_again)
            else:
                self._accept(all_of_them=True)
        if self._call is None and self._socket.fileno() >= 0:
            self._poller.addReader(self)

    def _accept(self, *, all_of_them: bool = False) -> None:
        """
        Take what is there, as long as it is this worker's turn, or *all_of_them*.
        """
        for _ in range(AT_ONCE):
            try:
                connection, address = self._accept_one()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._cannot_accept(error)
                return
            self._begun += 1
            begin(connection, address, self._factory, self._begun, self._poller)
            if not (all_of_them or self._counts.is_due(self._number)):
                return

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno not in _EXHAUSTED:
            # It was a client's doing (accept(2) hands on what the network says), or the socket has
            # been shut down, which is told in its own way.
            return
        self._log.error(
            "no more connections for now: {reason}", reason=error.strerror, errno=error.errno
        )
        self._stand_back(EXHAUSTED_SECONDS)
